"""What a person sees: episodes as trees, answers and policies as tables, training as it goes."""
