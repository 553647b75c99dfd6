"""The inference service: token-exact assistant turns from shared models, and weights that change under them."""
