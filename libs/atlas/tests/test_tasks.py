"""Tasks and their files."""

import json
from pathlib import Path

import pytest
from wideseek_atlas import Split, Task, draw_tasks
from wideseek_atlas.__main__ import main
from wideseek_atlas.scoring import gold_items, item_f1, table_items

TASKS: list[Task] = [task for index in range(120) for task in draw_tasks(Split.VALIDATION, index, 4)[1]]


def test_sizes_stay_in_their_bounds_and_use_them() -> None:
    assert {len(task.rows) for task in TASKS} == set(range(3, 13))
    assert {len(task.columns) for task in TASKS} == {2, 3, 4, 5}
    assert all(task.columns[0] == "name" == task.key_columns[0] for task in TASKS)


def test_most_questions_are_of_middling_size() -> None:
    assert sum(3 <= len(task.rows) <= 8 for task in TASKS) > 0.8 * len(TASKS)


def test_the_question_names_the_group_and_the_columns() -> None:
    for task in TASKS:
        assert task.group.name in task.question
        assert all(attribute in task.question for attribute in task.attributes)


def test_keys_are_unique_and_ids_too() -> None:
    assert all(len({row[0] for row in task.rows}) == len(task.rows) for task in TASKS)
    assert len({task.instance_id for task in TASKS}) == len(TASKS)


def test_a_task_is_the_same_each_time() -> None:
    assert draw_tasks(Split.TRAIN, 3, 2) == draw_tasks(Split.TRAIN, 3, 2)


def test_the_gold_table_scores_one_and_a_wrong_cell_less() -> None:
    task = next(task for task in TASKS if len(task.columns) == 3)
    answer = f"```markdown\n{task.answer}\n```"
    assert table_items(answer) == gold_items(task)
    assert item_f1(answer, task) == 1.0
    spoiled = answer.replace(f" {task.rows[0][1]} |", " nothing |", 1)
    size = len(gold_items(task))
    assert item_f1(spoiled, task) == pytest.approx((size - 1) / size)
    assert item_f1("no table", task) == 0.0


def test_a_row_left_out_costs_its_cells() -> None:
    task = TASKS[0]
    answer = "```markdown\n" + "\n".join(task.answer.split("\n")[:-1]) + "\n```"
    got, gold = len(gold_items(task)) - len(task.columns), len(gold_items(task))
    assert item_f1(answer, task) == pytest.approx(2 * got / (got + gold))


def test_the_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tasks", "--split", "heldout", "--worlds", "3", "--first", "5", "--per-world", "2"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    tasks = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    pages = [json.loads(line) for line in (tmp_path / "pages.jsonl").read_text().splitlines()]
    assert [task["corpus"] for task in tasks[::2]] == [f"atlas-heldout-00000{n}" for n in (5, 6, 7)]
    assert {page["corpus"] for page in pages} == {task["corpus"] for task in tasks}
    assert set(tasks[0]) == {
        "question",
        "answer",
        "unique_columns",
        "is_markdown",
        "instance_id",
        "language",
        "corpus",
        "columns",
    }
    assert set(pages[0]) == {"corpus", "url", "title", "text", "snippet"}
    assert f"{len(pages)} pages and 6 tasks" in capsys.readouterr().out


def test_the_command_names_what_is_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tasks", "--split", "train", "--worlds", "1", "--per-world", "9", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "per_world 9" in capsys.readouterr().err
