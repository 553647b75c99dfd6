"""The layout of the tantivy index: which fields there are, and how a page becomes a document.

Invariants: `key` is one corpus's one address, so a page can be replaced; words are indexed without being stored, and
what is shown is stored without being indexed, so that Chinese runs can be cut for the index alone.
"""

from collections.abc import Sequence

from tantivy import Document, Filter, Occur, Query, Schema, SchemaBuilder, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from wideseek_tools.core.model import Page
from wideseek_tools.core.urls import canonical
from wideseek_tools.core.words import for_index, for_query

ANALYZER = "wideseek"
_TITLE_BOOST = 3.0
_MAX_WORDS = 48
_MAX_WORD_BYTES = 80


def build_schema() -> Schema:
    """The fields of the index."""
    builder = SchemaBuilder()
    builder.add_text_field("key", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("corpus", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("title_words", tokenizer_name=ANALYZER, index_option="freq")
    builder.add_text_field("body_words", tokenizer_name=ANALYZER, index_option="freq")
    for shown in ("url", "title", "snippet", "text"):
        builder.add_bytes_field(shown, stored=True, indexed=False)
    return builder.build()


def build_analyzer() -> TextAnalyzer:
    """Words of letters and digits, in lower case, without accents."""
    return (
        TextAnalyzerBuilder(Tokenizer.simple())
        .filter(Filter.remove_long(_MAX_WORD_BYTES))
        .filter(Filter.lowercase())
        .filter(Filter.ascii_fold())
        .build()
    )


def key_of(corpus: str, url: str) -> str:
    """The key of a page. Names of corpora have no NUL, so no two pages share one."""
    return f"{corpus}\0{canonical(url)}"


def document_of(page: Page) -> Document:
    """The page as a document; the snippet's words count with the text's."""
    document = Document()
    document.add_text("key", key_of(page.corpus, page.url))
    document.add_text("corpus", page.corpus)
    document.add_text("title_words", for_index(page.title))
    document.add_text("body_words", for_index(f"{page.text}\n{page.snippet}" if page.snippet else page.text))
    document.add_bytes("url", page.url.encode())
    document.add_bytes("title", page.title.encode())
    document.add_bytes("snippet", page.snippet.encode())
    document.add_bytes("text", page.text.encode())
    return document


def words_of(analyzer: TextAnalyzer, query: str) -> list[str]:
    """The different words of a query, in their order, bounded in number. No character has a special meaning."""
    return list(dict.fromkeys(analyzer.analyze(for_query(query))))[:_MAX_WORDS]


def query_of(schema: Schema, words: Sequence[str], corpus: str | None) -> Query:
    """Pages with any of `words`, by BM25 of the title (boosted) and the body; `corpus` None asks all pages."""
    alternatives: list[tuple[Occur, Query]] = []
    for word in words:
        title = Query.boost_query(Query.term_query(schema, "title_words", word, "freq"), _TITLE_BOOST)
        alternatives.append((Occur.Should, title))
        alternatives.append((Occur.Should, Query.term_query(schema, "body_words", word, "freq")))
    matching = Query.boolean_query(alternatives)
    if corpus is None:
        return matching
    within = Query.const_score_query(Query.term_query(schema, "corpus", corpus, "basic"), 0.0)
    return Query.boolean_query([(Occur.Must, within), (Occur.Must, matching)])
