"""`make setup`: the installers that it tries. They are scripts here, so nothing is installed."""

import importlib.util
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "setup.py"
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


class Checkout:
    """A copy of the script in its own project, where Python, uv and nvidia-smi are scripts that record each call.

    A call fails if its recorded line contains one of the texts in the file `failing`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        (folder / "scripts").mkdir()
        (folder / "scripts" / "setup.py").write_bytes(SCRIPT.read_bytes())
        (folder / "pyproject.toml").write_text("[project]\n")
        self.fake(folder / ".venv" / "bin" / "python")
        self.failing()

    def fake(self, path: Path, name: str = "", output: str = "") -> None:
        """Writes a program at this path that records `name` with its arguments, and prints `output`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"""#!{sys.executable} -S
import sys
line = " ".join([{name!r}, *sys.argv[1:]]).replace("\\n", " ").strip()
with open({str(self.folder / "calls")!r}, "a") as calls:
    calls.write(line + "\\n")
print({output!r} or ("on a terminal" if sys.stdout.isatty() else "Collecting torch"))
if any(text in line for text in open({str(self.folder / "failing")!r}).read().splitlines()):
    sys.exit("ERROR: no such build")
""")
        path.chmod(0o755)

    def failing(self, *texts: str) -> None:
        (self.folder / "failing").write_text("\n".join(texts))

    def uv(self) -> None:
        self.fake(self.bin / "uv", "uv")

    def gpu(self) -> None:
        self.fake(self.bin / "nvidia-smi", "nvidia-smi", "GPU 0: NVIDIA H100")

    def setup(self) -> subprocess.CompletedProcess[str]:
        self.bin.mkdir(exist_ok=True)
        command = [sys.executable, str(self.folder / "scripts" / "setup.py")]
        environment = {"PATH": str(self.bin)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def installs(self) -> list[str]:
        """The installers' calls, without the words that all of them share."""
        root, python = str(self.folder), str(self.folder / ".venv" / "bin" / "python")
        calls = (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []
        (self.folder / "calls").unlink(missing_ok=True)
        shown = [call.replace(f" --python {python}", "").replace(root, "") for call in calls]
        return [call.replace("-m pip", "pip").replace(" install --editable", "") for call in shown if "pip" in call]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def chosen(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1].removeprefix("setup: chose ")


def test_without_a_gpu_it_takes_the_cpu_build_with_pip(checkout: Checkout) -> None:
    assert chosen(checkout.setup()) == "vLLM's CPU build"
    assert checkout.installs() == ["pip [cpu,dev]"]


def test_each_attempt_that_fails_says_why_and_leads_to_the_next(checkout: Checkout) -> None:
    checkout.gpu()
    checkout.failing("[gpu", "[cpu")
    done = checkout.setup()
    assert chosen(done) == "no vLLM: the transformers backend alone"
    assert checkout.installs() == ["pip [gpu,dev]", "pip [cpu,dev]", f"pip [cpu,dev] {CPU_INDEX}", "pip [dev]"]
    assert done.stdout.count("setup: that failed: ERROR: no such build\n") == 3


def test_uv_is_asked_for_torchs_cpu_build_unless_there_is_a_gpu(checkout: Checkout) -> None:
    checkout.uv()
    assert chosen(checkout.setup()) == "vLLM's CPU build, with uv"
    assert checkout.installs() == ["uv pip [cpu,dev] --torch-backend cpu"]
    checkout.gpu()
    assert chosen(checkout.setup()) == "vLLM on the GPU, with uv"
    assert checkout.installs() == ["uv pip [gpu,dev]"]


def test_pip_is_tried_where_uv_fails(checkout: Checkout) -> None:
    checkout.uv()
    checkout.failing("uv pip")
    assert chosen(checkout.setup()) == "vLLM's CPU build"
    assert checkout.installs() == ["uv pip [cpu,dev] --torch-backend cpu", "pip [cpu,dev]"]
    checkout.failing("uv pip", "[cpu")
    (checkout.folder / "pyproject.toml").write_text("[project]\n\n")
    assert chosen(checkout.setup()) == "no vLLM: the transformers backend alone"
    assert checkout.installs()[-2:] == ["uv pip [dev] --torch-backend cpu", "pip [dev]"]


def test_it_fails_where_nothing_can_be_installed_and_tries_again(checkout: Checkout) -> None:
    checkout.failing("pip install")
    assert checkout.setup().returncode == 1
    checkout.failing()
    assert chosen(checkout.setup()) == "vLLM's CPU build"


def test_it_is_quick_where_nothing_has_changed(checkout: Checkout) -> None:
    checkout.setup()
    checkout.installs()
    ready = checkout.folder / ".venv" / "ready"
    os.utime(ready, (0, 0))
    start = time.monotonic()
    done = checkout.setup()
    assert time.monotonic() - start < 2
    assert done.stdout == "setup: nothing has changed since it chose vLLM's CPU build\n"
    assert checkout.installs() == []
    assert ready.stat().st_mtime > time.time() - 60  # or make would ask again each time
    for change in (
        lambda: (checkout.folder / "pyproject.toml").write_text("[project]\nname = 'infer'\n"),
        checkout.gpu,
    ):
        change()
        checkout.setup()
        assert len(checkout.installs()) == 1


def test_media_packages_that_cannot_be_imported_are_removed(checkout: Checkout) -> None:
    checkout.failing("import torchvision")
    assert "removed torchvision, torchaudio, torchcodec" in checkout.setup().stdout
    assert checkout.installs()[-1] == "pip uninstall --quiet --yes torchvision torchaudio torchcodec"


def test_a_long_installation_says_how_far_it_is(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("setup_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    assert setup.EVERY_SEC <= 60
    monkeypatch.setattr(setup, "EVERY_SEC", 0.2)
    code = "import time; print('Collecting vllm', flush=True); time.sleep(1); raise SystemExit('error: no room')"
    assert setup.install([sys.executable, "-c", code]) == "error: no room"
    said = capfd.readouterr().out.splitlines()
    assert len(said) >= 3
    assert said[-1] == "setup: 1 s: Collecting vllm"


def test_on_a_terminal_the_installer_shows_its_own_progress(checkout: Checkout) -> None:
    ours, theirs = pty.openpty()
    checkout.failing("[cpu,dev]")
    checkout.bin.mkdir()
    command = [sys.executable, str(checkout.folder / "scripts" / "setup.py")]
    done = subprocess.run(command, env={"PATH": str(checkout.bin)}, stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    said = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert done.returncode == 0
    attempt = ["setup: trying vLLM's CPU build ...", "on a terminal", "ERROR: no such build"]
    assert said[:4] == [*attempt, "setup: that failed: see above"]
    assert said[-1] == "setup: chose no vLLM: the transformers backend alone"
