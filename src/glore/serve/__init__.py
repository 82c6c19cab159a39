"""`glore serve`: a finished run behind OpenAI's API.

limits    what is accepted
bodies    the JSON of requests
asking    a body → work, checked
worker    one thread that owns the models; requests of all clients become batches
perform   work → answers, by `drawing` and `choosing` (student, best-of-n, majority), `refining`
          (glore), `iterating` (glore-iterated) and `cascading` (glore-cascade)
wire      answers → OpenAI's JSON, whole or as a stream
guard     the API key, and the limit on bodies
app       the routes; needs FastAPI, as does `run`, which starts uvicorn
"""
