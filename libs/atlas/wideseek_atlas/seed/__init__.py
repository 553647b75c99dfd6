"""The seed policy: its tokenizer, the model trained from random weights, and the check of how it plays. Needs torch."""
