"""The library's own common tests: fetched with its source distribution, made importable as `transformers_tests`.

The tests are in no wheel, so the source distribution of the installed version is downloaded once from the package
registry. Its test files import a few helper modules that it does not contain; `STAND_INS` puts ours in their place.
Nothing of it is committed: it lies under `.cache/`, which git ignores.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers
from transformers.models.auto import modeling_auto

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "conformance"
PACKAGE = "transformers_tests"

# where the archive's files look for each helper, relative to the package; a leading ".." is beside it
STAND_INS = {
    "generation/test_utils.py": "generation_mixin.py",
    "exporters/test_export.py": "export_mixin.py",
    "distributed_testing_utils.py": "rank_processes.py",
    "utils/test_configuration_utils.py": "configuration_values.py",
    "../tests/utils/tiny_model_summary.json": "no_tiny_models.json",
    "../utils/fetch_hub_objects_for_ci.py": "local_media.py",
}


class ArchiveError(RuntimeError):
    """The source distribution cannot be had."""


def prepare() -> Path:
    """Fetches the archive unless it is there, puts the stand-ins in place and makes the tests importable.

    Returns:
        The folder that holds the package `transformers_tests`.

    Raises:
        ArchiveError: the package registry cannot be reached, or does not have this version.
    """
    root = CACHE / f"transformers-{transformers.__version__}"
    if not (root / PACKAGE).is_dir():
        fetch(transformers.__version__, root)
    place_stand_ins(root / PACKAGE)
    if str(root) not in sys.path:
        sys.path.append(str(root))
    name_model_type()
    return root


def name_model_type() -> None:
    """The mixins read the library's static tables of names, which `Auto….register()` does not fill."""
    modeling_auto.MODEL_MAPPING_NAMES.update(
        mirasol="MirasolModel",
        mirasol_video="MirasolVideoModel",
        mirasol_audio="MirasolAudioModel",
        mirasol_combiner="CombinerAlone",
        mirasol_time="TimeModelAlone",
        mirasol_text="MirasolTextModel",
    )
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["mirasol"] = "MirasolForConditionalGeneration"


def fetch(version: str, root: Path) -> None:
    """Downloads the source distribution of `version` and unpacks its tests to `root/transformers_tests`."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-binary", "transformers", "--no-deps"]
        done = subprocess.run(
            [*command, f"transformers=={version}", "--dest", folder], capture_output=True, text=True, check=False
        )
        found = sorted(Path(folder).glob("transformers-*.tar.gz"))
        if done.returncode or not found:
            raise ArchiveError(
                f"the source distribution of transformers {version} could not be downloaded to {root}: "
                f"{(done.stderr or done.stdout).strip()[-600:]}"
            )
        top = f"transformers-{version}"
        with tarfile.open(found[0]) as archive:
            wanted = [member for member in archive.getmembers() if member.name.startswith(f"{top}/tests/")]
            archive.extractall(folder, members=wanted, filter="data")
        unpacked = Path(folder) / "unpacked"
        unpacked.mkdir()
        (Path(folder) / top / "tests").rename(unpacked / PACKAGE)
        # the pipeline mixin imports the library by its place beside the tests
        (unpacked / "src").mkdir()
        (unpacked / "src" / "transformers").symlink_to(Path(transformers.__file__).parent, target_is_directory=True)
        if root.exists():
            shutil.rmtree(root)
        unpacked.rename(root)


def place_stand_ins(package: Path) -> None:
    """Copies our helper modules to where the archive's files import them."""
    for place, name in STAND_INS.items():
        target = (package / place).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "stand_ins" / name, target)
    for folder in (package, package / "generation", package / "exporters", package / "utils"):
        (folder / "__init__.py").touch()


if __name__ == "__main__":
    print(prepare())
