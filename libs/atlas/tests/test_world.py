"""Worlds: determinism, disjoint splits, and pages that tell the facts."""

import hashlib
import json
from dataclasses import asdict

import pytest
from wideseek_atlas import Split, World, make_world
from wideseek_atlas.lexicon import NAMES, SMALL_NUMBERS, WORDS
from wideseek_atlas.world import SPLIT_SIZE, world_seed

WORLDS = [make_world(Split.TRAIN, index) for index in range(20)]


def test_a_world_is_the_same_for_ever() -> None:
    world = make_world(Split.HELDOUT, 7)
    digest = hashlib.sha256(json.dumps([asdict(page) for page in world.pages]).encode()).hexdigest()
    assert digest == "993d71a06a978fcc0a8fb1dfd6232420152b5272f14d7ad69b40e88ecb68f79c"


def test_other_indices_and_splits_give_other_worlds() -> None:
    drawn = [make_world(split, index) for split in Split for index in range(5)]
    assert len({world.pages for world in drawn}) == len(drawn)
    assert len({world.corpus for world in drawn}) == len(drawn)


def test_the_splits_never_share_a_seed() -> None:
    ends = [(world_seed(split, 0), world_seed(split, SPLIT_SIZE - 1)) for split in Split]
    assert all(last < first for (_, last), (first, _) in zip(ends, ends[1:], strict=False))


@pytest.mark.parametrize("index", [-1, SPLIT_SIZE])
def test_an_index_outside_the_split_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"index {index}"):
        world_seed(Split.TRAIN, index)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.corpus)
def test_every_fact_stands_in_its_page(world: World) -> None:
    texts = {page.title: page.text for page in world.pages}
    for group in world.groups:
        assert all(member in texts[group.name] for member in group.members)
        for member, facts in group.facts.items():
            assert all(value in texts[member] for value in facts.values())


def test_snippets_mislead_where_the_page_is_right() -> None:
    misled = right = silent = 0
    for world in WORLDS:
        pages = {page.title: page for page in world.pages}
        for group in world.groups:
            for member, facts in group.facts.items():
                claim = world.claims[member]
                silent += not claim
                for attribute, value in claim.items():
                    assert f"Its {attribute} is {value}." in pages[member].snippet
                    right += value == facts[attribute]
                    if value != facts[attribute]:
                        misled += 1
                        assert f"Older lists have a wrong {attribute}." in pages[member].text
                        assert value not in pages[member].text.replace(".", "").split()
    assert min(misled, right, silent) > 50


def test_addresses_are_unique_and_made_of_titles() -> None:
    for world in WORLDS:
        urls = [page.url for page in world.pages]
        assert len(set(urls)) == len(urls)
        assert all(page.url == "https://atlas.test/" + page.title.replace(" ", "_") for page in world.pages)


def test_the_lexicon_is_closed_and_without_doubles() -> None:
    assert len(set(NAMES)) == len(NAMES) == 1200
    assert not set(NAMES) & set(WORDS)
    assert max(SMALL_NUMBERS) == 499
