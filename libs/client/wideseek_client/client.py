"""The asynchronous client: every call that a user of the suite makes."""

from wideseek_client.episodes import Episodes
from wideseek_client.ingest import Corpora
from wideseek_client.models import Models
from wideseek_client.training import Training


class Client(Episodes, Training, Corpora, Models):
    """All services behind one object.

    ```python
    async with Client(Endpoints(lead="127.0.0.1:50051")) as client:
        episode = await client.ask("Which moons does Zark have? Give their radius.")
    ```
    """
