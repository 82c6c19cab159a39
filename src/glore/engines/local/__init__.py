"""The engine in this process: transformers models, sampled over one prefix tree."""
