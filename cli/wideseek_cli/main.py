"""The `wideseek` command: every subcommand in one place."""

import typer

from wideseek_cli.commands import atlas, corpus, episodes, policies, suite, training
from wideseek_cli.demo import demo
from wideseek_cli.learn.command import learn

app = typer.Typer(
    name="wideseek",
    help="Ask broad questions of many agents at once, and train the model that they share.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(suite.up)
app.command()(suite.down)
app.command()(suite.status)
app.command()(episodes.ask)
app.command()(episodes.watch)
app.command("episodes")(episodes.episodes)
app.command()(training.train)
app.command()(training.runs)
app.add_typer(policies.app, name="policies")
app.command()(corpus.ingest)
app.command()(corpus.corpora)
app.command()(atlas.atlas)
app.command()(demo)
app.command()(learn)
