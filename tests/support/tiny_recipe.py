"""The whole method on a model of a few thousand weights, which learns next to nothing."""

from __future__ import annotations

__all__ = ["tiny_recipe"]


def tiny_recipe(name: str) -> str:
    """The recipe as YAML."""
    return f"""
name: {name}
task:
  stories: {{people: [2, 2], steps: [1, 2], max_number: 10, extra_relations: 0, distractors: 0,
            n_train: 60, n_dev: 20, n_test: 20, worked_share: 0.5}}
base:
  scratch: {{hidden_size: 64, n_layers: 2, n_heads: 2, intermediate_size: 128,
            max_positions: 512, vocab_size: 400, n_tokens: 100000,
            train: &train {{learning_rate: 3e-3, optimizer: muon, batch_size: 8, max_length: 256}}}}
student: {{sft: {{<<: *train, epochs: 8}}, ei: {{samples: 4, max_rounds: 1}},
          ei_train: *train, max_new_tokens: 40}}
reward: {{samples: 4, draft_samples: 2, orm: *train, sorm: *train}}
labels: {{rollouts: 3, max_new_tokens: 40}}
refiner: {{train: *train}}
evaluation: {{samples: 4, bootstrap_samples: 100}}
"""
