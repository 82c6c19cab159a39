"""Proximal policy optimisation (PPO) of a language model, token by token.

A round: the policy draws completions, somebody else rewards their tokens, and a few epochs of
minibatches improve the policy. Loss: the clipped ratio (Schulman et al. 2017, arXiv 1707.06347);
advantages: generalised estimation (GAE, arXiv 1506.02438), whitened over the round; the reference's
KL divergence is a penalty per token within the reward (Ziegler et al. 2019, arXiv 1909.08593).

Choices of ours: the value is linear in the policy's last hidden state, and its gradient ends there,
so it can't disturb the policy; its loss is not clipped; the entropy is measured and earns nothing;
dropout is off, so the first ratio is 1; the learning rate falls along a cosine over all rounds.
Left out: LoRA, several devices, mixed precision, an adaptive KL coefficient.

settings    what a recipe of rounds can set
episodes    prompt, drawn tokens, a reward for each of them
advantages  penalties, returns, advantages (numpy)
loss        the losses of policy and value (torch)
policy      a language model with a value: log-probabilities, entropies, values
state       a policy on disk between two rounds
update      one round's update
"""
