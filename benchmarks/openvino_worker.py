"""Runs in OpenVINO's own environment: exports a model, then reads requests from standard input, one
per line, and draws their continuations. Arguments: model folder, products (f32 or bf16), threads.
"""

import json
import sys
from pathlib import Path


def main(source: str, products: str, n_threads: int) -> None:
    try:
        import numpy as np
        import openvino as ov
        import openvino_genai as genai
        from optimum.intel import OVModelForCausalLM

        target = str(Path(source).with_name("exported"))
        OVModelForCausalLM.from_pretrained(
            source, export=True, compile=False, load_in_8bit=False
        ).save_pretrained(target)
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = 1
        scheduler.max_num_seqs = 256
        scheduler.max_num_batched_tokens = 4096
        precise = {
            "INFERENCE_PRECISION_HINT": products,
            "KV_CACHE_PRECISION": products,
            "INFERENCE_NUM_THREADS": n_threads,
        }
        pipeline = genai.ContinuousBatchingPipeline(target, scheduler, "CPU", precise)
    except Exception as error:
        print("error", " ".join(str(error).split())[:300], flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        prompts, settings = [], []
        request = json.loads(line)
        eos = request["eos"]
        for ids, k, n_new in request["asks"]:
            one = genai.GenerationConfig()
            one.max_new_tokens, one.num_return_sequences = n_new, k
            one.do_sample, one.temperature = True, 1.0
            one.ignore_eos = eos is None
            one.eos_token_id = 1 if eos is None else eos
            one.stop_token_ids = {one.eos_token_id}
            prompts.append(ov.Tensor(np.array([ids], np.int64)))
            settings.append(one)
        try:
            results = pipeline.generate(prompts, settings)
        except Exception as error:
            print("error", " ".join(str(error).split())[:300], flush=True)
            return
        drawn = [len(ids) for r in results for ids in r.m_generation_ids]
        print("done", len(drawn), sum(drawn), flush=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
