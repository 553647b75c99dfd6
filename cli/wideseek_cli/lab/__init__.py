"""Experiments on a running suite: worlds and tasks, evaluation, statistics. `demo` and `learn` are made of these."""
