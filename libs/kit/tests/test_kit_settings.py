import subprocess
import sys

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from wideseek_kit.settings import ServiceSettings, describe, read_settings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="WIDESEEK_KITTEST_", frozen=True, extra="ignore")

    width: int = Field(4, ge=1, le=8, description="subagents at once")
    source: str = Field(description="where from")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIDESEEK_KITTEST_SOURCE", "here")
    monkeypatch.setenv("WIDESEEK_KITTEST_WIDTH", "8")
    monkeypatch.setenv("WIDESEEK_KITTEST_UNHEARD_OF", "1")
    settings = read_settings(Settings, "program", [])
    assert (settings.source, settings.width, settings.drain_grace) == ("here", 8, 20.0)
    with pytest.raises(ValueError, match="frozen"):
        settings.width = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("WIDTH", "9", "less than or equal to 8"),
        ("WIDTH", "many", "valid integer"),
        ("DRAIN_GRACE", "-1", "greater than or equal to 0"),
        ("LOG_LEVEL", "LOUD", "match pattern"),
    ],
)
def test_a_wrong_setting_names_variable_and_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, why: str
) -> None:
    monkeypatch.setenv("WIDESEEK_KITTEST_SOURCE", "here")
    monkeypatch.setenv(f"WIDESEEK_KITTEST_{name}", value)
    with pytest.raises(SystemExit) as ended:
        read_settings(Settings, "program", [])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"program: WIDESEEK_KITTEST_{name}={value!r}: ")
    assert why in line


def test_a_missing_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(Settings, "program", [])
    assert ended.value.code == 2
    assert "WIDESEEK_KITTEST_SOURCE" in capsys.readouterr().err


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(Settings, "program", ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert describe(Settings) in shown
    assert "WIDESEEK_KITTEST_WIDTH  (default 4)\n      subagents at once" in shown
    assert "WIDESEEK_KITTEST_SOURCE  (required)" in shown
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_help_is_answered_before_anything_heavy_is_imported() -> None:
    program = """
import sys
from wideseek_kit.entry import main
from wideseek_kit.settings import ServiceSettings
sys.argv = ["x", "--help"]
try:
    main("kittest", ServiceSettings, "no.such.module:run")
except SystemExit as end:
    heavy = {"grpc", "nats", "opentelemetry", "ray", "torch", "vllm"} & set(sys.modules)
    sys.exit(f"{end.code} {sorted(heavy)}" if end.code or heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m wideseek_kittest" in done.stdout
