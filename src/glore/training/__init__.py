"""Fine-tune a causal LM, train a step classifier, train a small base model from nothing.

Import the trainers from their modules (`finetune`, `scratch`): they pull in torch and transformers.
"""
