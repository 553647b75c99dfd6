"""Answer tables, their scores and rewards. Pure: text in, figures out, no I/O and no third-party import."""
