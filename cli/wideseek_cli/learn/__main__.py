"""`python -m wideseek_cli.learn`: the same as `wideseek learn`."""

import typer

from wideseek_cli.learn.command import learn

if __name__ == "__main__":
    typer.run(learn)
