"""Work on files of solutions, without a run: step labels, reward models, scores.

settings   what a user gives on the command line → settings
answers    the gold answer of each solution
graded     solutions of a file → problems and graded drafts
cost       tokens and time of verifying rollouts, before they are drawn
label      SORM labels for a file (the stages of a run, over a file)
examples   labels of a file → labels to train on
train      a reward model from labelled solutions
score      step scores of a file
judging    how well scores agree with the labels of the file
"""
