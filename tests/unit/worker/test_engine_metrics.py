"""An engine's own metrics on its worker's port, and those that are made for an Ollama."""

from __future__ import annotations

import asyncio
import subprocess
from shutil import which

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from neurogate.channel import End, EndCode
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.engines.engine import Figures, LoadedModel
from neurogate.inference import Usage
from neurogate.telemetry import catalog
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.testing.engines import HANG, ScriptedEngine
from neurogate.virtual_time import run
from neurogate.worker.engine_metrics import EngineMetrics, OllamaMetrics
from neurogate.worker.gpu import Nvml
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.outside_metrics import OutsideMetrics
from worker_support import Setup, progress

LLAMACPP = b"""\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 37
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 0
"""
VLLM = b"""\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 9
# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 50
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 1
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 2
vllm:time_to_first_token_seconds_count{model_name="m"} 2
vllm:time_to_first_token_seconds_sum{model_name="m"} 0.9
"""


class Scraped:
    """A registry with one engine's metrics."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.registry = CollectorRegistry()
        self.metrics = EngineMetrics(engine, loop=asyncio.get_running_loop())
        self.registry.register(self.metrics)

    async def text(self) -> str:
        await self.metrics.refresh()
        return generate_latest(self.registry).decode()


def counting(text: bytes) -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.counted = Figures(text)
    return engine


def test_llamacpps_pass_through_with_an_underscore_and_no_label_made_up() -> None:
    text = asyncio.run(_once(counting(LLAMACPP)))
    assert (
        text.splitlines()
        == LLAMACPP.decode()
        .replace("llamacpp:", "llamacpp_")
        .replace(" 37", " 37.0")
        .replace("deferred 0", "deferred 0.0")
        .splitlines()
    )


def test_of_a_vllm_only_its_own_pass_through() -> None:
    text = asyncio.run(_once(counting(VLLM)))
    assert "python_gc" not in text
    assert "process_open_fds" not in text
    assert 'vllm_num_requests_running{engine="0",model_name="m"} 2.0' in text
    assert 'vllm_time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 2.0' in text


def test_a_long_text_is_read_as_well() -> None:
    lines = [f'vllm:num_requests_running{{engine="{engine}"}} 1' for engine in range(1000)]
    text = asyncio.run(_once(counting("\n".join(["# TYPE vllm:num_requests_running gauge", *lines, ""]).encode())))
    assert text.count("vllm_num_requests_running{") == 1000


async def _once(engine: ScriptedEngine) -> str:
    return await Scraped(engine).text()


def test_an_engine_is_asked_once_a_second_at_most() -> None:
    async def main() -> None:
        engine = counting(b"")
        scraped = Scraped(engine)
        await asyncio.gather(scraped.text(), scraped.text())
        await asyncio.sleep(0.9)
        await scraped.text()
        assert engine.figures_asked == 1
        await asyncio.sleep(0.2)
        await scraped.text()
        assert engine.figures_asked == 2

    run(main())


@pytest.mark.parametrize("trouble", ["hangs", "raises", "no text", "no metrics"])
def test_whatever_an_engine_does_the_scrape_goes_on_without_it(trouble: str) -> None:
    async def main() -> None:
        engine = counting(LLAMACPP)
        scraped = Scraped(engine)
        loop = asyncio.get_running_loop()
        assert "llamacpp_prompt_tokens_total" in await scraped.text()
        match trouble:
            case "hangs":
                engine.figures_steps = [HANG]
            case "raises":
                engine.figures_steps = [RuntimeError("a bug")]
            case "no text":
                engine.counted = Figures(b"\xff\xfe")
            case _:
                engine.counted = Figures(b"llamacpp:x{ 1")
        for _ in range(2):
            await asyncio.sleep(2)
            began = loop.time()
            with capture_logs() as logs:
                assert await scraped.text() == ""
            assert loop.time() - began <= 1.5
            assert len(logs) <= 1
        engine.figures_steps, engine.counted = [], Figures(LLAMACPP)
        await asyncio.sleep(2)
        assert "llamacpp_prompt_tokens_total" in await scraped.text()

    run(main())


REPORT = WorkerReport(
    engine_kind="ollama",
    engine_version="0.14.0",
    models=(
        ServedModel("tiny:latest", size_bytes=2 << 30),
        ServedModel("tiny", size_bytes=2 << 30),
        ServedModel("big:70b", size_bytes=40 << 30, loaded=False),
    ),
)


class OllamaWorker:
    """A worker's metrics over an Ollama."""

    def __init__(
        self,
        report: WorkerReport = REPORT,
        figures: Figures = Figures(),  # noqa: B008 - frozen
        *,
        models_max: int = 100,
    ) -> None:
        self.metrics = WorkerMetrics(MetricSettings(models_max=models_max))
        self.metrics.registry.register(OllamaMetrics(self.metrics, report=lambda: report, figures=lambda: figures))

    def value(self, metric: str, /, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(metric, labels)


def test_an_ollama_has_metrics_of_what_its_api_tells() -> None:
    loaded = (LoadedModel("tiny:latest", 3 << 30, 2 << 30, 1_767_323_045.0), LoadedModel("other:latest", 1 << 30, 0))
    made = OllamaWorker(figures=Figures(loaded=loaded))
    assert (made.value("ollama_up"), made.value("ollama_connected")) == (1, 1)
    assert made.value("ollama_info", version="0.14.0") == 1
    assert made.value("ollama_model_installed_bytes", model="tiny:latest") == 2 << 30
    assert made.value("ollama_model_installed_bytes", model="tiny") is None  # the same under another name
    assert made.value("ollama_model_installed_bytes", model="big:70b") == 40 << 30
    assert made.value("ollama_model_loaded_bytes", model="tiny:latest") == 3 << 30
    assert made.value("ollama_model_vram_bytes", model="tiny:latest") == 2 << 30
    assert made.value("ollama_model_expires_timestamp_seconds", model="tiny:latest") == 1_767_323_045
    assert made.value("ollama_model_expires_timestamp_seconds", model="other:latest") is None


def test_models_without_series_of_their_own_are_told_together() -> None:
    models = tuple(ServedModel(f"m{number}:latest", True, 0, size_bytes=100 + number) for number in range(4))
    loaded = tuple(LoadedModel(f"m{number}:latest", 10 + number, 5, 1_767_323_045.0) for number in range(3))
    made = OllamaWorker(WorkerReport(engine_kind="ollama", models=models), Figures(loaded=loaded), models_max=1)
    told = [
        line for line in generate_latest(made.metrics.registry).decode().splitlines() if line[:13] == "ollama_model_"
    ]
    assert told == [
        'ollama_model_installed_bytes{model="m0:latest"} 100.0',
        'ollama_model_installed_bytes{model="other"} 306.0',
        'ollama_model_loaded_bytes{model="m0:latest"} 10.0',
        'ollama_model_loaded_bytes{model="other"} 23.0',
        'ollama_model_vram_bytes{model="m0:latest"} 5.0',
        'ollama_model_vram_bytes{model="other"} 10.0',
        'ollama_model_expires_timestamp_seconds{model="m0:latest"} 1.767323045e+09',
    ]


def test_an_ollama_that_does_not_answer_is_down_and_tells_nothing_else() -> None:
    made = OllamaWorker(WorkerReport(engine_kind="ollama"))
    assert (made.value("ollama_up"), made.value("ollama_connected")) == (0, 0)
    samples = [sample.name for family in made.metrics.registry.collect() for sample in family.samples]
    assert [name for name in samples if name.startswith("ollama_")] == ["ollama_up", "ollama_connected"]


def test_requests_of_an_ollama_are_told_under_the_names_of_the_first_neurogate() -> None:
    async def main() -> None:
        made = OllamaWorker()
        progress(made.metrics).finish(End(http_status=200, usage=Usage(4, 5)))
        progress(made.metrics).finish(End(EndCode.BROKEN))
        assert made.value("ollama_requests_total", model="tiny", status="200") == 1
        assert made.value("ollama_requests_total", model="tiny", status="broken") == 1
        assert made.value("ollama_request_errors_total", model="tiny", error_type="broken") == 1
        assert made.value("ollama_prompt_tokens_total", model="tiny") == 4
        assert made.value("ollama_completion_tokens_total", model="tiny") == 5

    run(main())


class OllamaLike(ScriptedEngine):
    """An engine that says that it is an Ollama."""

    @property
    def kind(self) -> str:
        return "ollama"


@pytest.mark.parametrize(("engine", "shown"), [(OllamaLike, 1), (ScriptedEngine, None)])
def test_only_a_worker_of_an_ollama_has_its_metrics(engine: type[ScriptedEngine], shown: int | None) -> None:
    def no_library() -> Nvml:
        raise ImportError("No module named 'pynvml'")

    async def main() -> None:
        setup = Setup(engine())
        loop = asyncio.get_running_loop()
        outside = OutsideMetrics(setup.engine, setup.worker, setup.metrics, loop=loop, load=no_library)
        await outside.refresh()
        assert setup.metrics.registry.get_sample_value("ollama_up") == shown
        assert "neurogate_gpu" not in generate_latest(setup.metrics.registry).decode()
        outside.close()

    asyncio.run(main())


def test_all_names_of_ollamas_are_declared() -> None:
    collector = OllamaMetrics(WorkerMetrics(), report=lambda: REPORT, figures=Figures)
    assert {family.name for family in collector.describe()} == {
        metric.name.removesuffix("_total") for metric in catalog.sections()[catalog.OLLAMA]
    }


@pytest.mark.skipif(
    which("promtool") is None, reason="promtool is not installed; Debian has it in the package prometheus"
)
def test_promtool_finds_nothing_to_complain_of_in_an_ollamas() -> None:
    loaded = (LoadedModel("tiny:latest", 3 << 30, 2 << 30, 1_767_323_045.0),)
    text = generate_latest(OllamaWorker(figures=Figures(loaded=loaded)).metrics.registry)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
