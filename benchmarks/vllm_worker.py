"""Runs in vLLM's own environment: loads a model in bfloat16 or float32, then reads requests from
standard input, one line each, and draws their continuations.
"""

import json
import sys


def main(source: str, dtype: str) -> None:
    try:
        from vllm import LLM, SamplingParams

        engine = LLM(
            source,
            dtype=dtype,
            max_num_seqs=256,
            max_model_len=2048,
            max_num_batched_tokens=4096,
            enable_prefix_caching=True,
            disable_log_stats=True,
        )
    except Exception as error:
        print("error", " ".join(str(error).split())[:300], flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        eos = request["eos"]
        prompts = [{"prompt_token_ids": ids} for ids, _, _ in request["asks"]]
        settings = [
            SamplingParams(
                n=k,
                temperature=1.0,
                max_tokens=n_new,
                ignore_eos=eos is None,
                detokenize=False,
            )
            for _, k, n_new in request["asks"]
        ]
        try:
            results = engine.generate(prompts, settings, use_tqdm=False)
        except Exception as error:
            print("error", " ".join(str(error).split())[:300], flush=True)
            return
        drawn = [len(o.token_ids) for result in results for o in result.outputs]
        print("done", len(drawn), sum(drawn), flush=True)


if __name__ == "__main__":  # vLLM starts its process by importing this file again
    main(sys.argv[1], sys.argv[2])
