"""Build medkit: every field comes from settings.ini, and the wheel carries the data, the tour and the lessons."""

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CONFIG = ConfigParser(delimiters=["="], interpolation=None)
CONFIG.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = CONFIG["DEFAULT"]
SHIPPED = {"data": "data", "nbs/lessons": "lessons"}  # folder here -> folder under medkit/_shipped


class BuildWithData(build_py):
    "Copy data/ and the lessons into the package, so that an installed medkit is whole."

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        for source, target in SHIPPED.items():
            shutil.copytree(
                ROOT / source,
                Path(self.build_lib) / "medkit" / "_shipped" / target,
                ignore=shutil.ignore_patterns(".*", "__pycache__"),
                dirs_exist_ok=True,
            )


EXTRAS = {
    key.removesuffix("_requirements"): value.split()
    for key, value in SETTINGS.items()
    if key.endswith("_requirements")
}

setup(
    name=SETTINGS["lib_name"],
    version=SETTINGS["version"],
    description=SETTINGS["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=SETTINGS["author"],
    keywords=SETTINGS["keywords"].split(),
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=f">={SETTINGS['min_python']}",
    packages=find_packages(include=["medkit", "medkit.*"]),
    install_requires=SETTINGS["requirements"].split(),
    extras_require=EXTRAS,
    entry_points={"console_scripts": SETTINGS["console_scripts"].split()},
    classifiers=[
        "Development Status :: 3 - Alpha",
        f"Intended Audience :: {SETTINGS['audience']}",
        f"Natural Language :: {SETTINGS['language']}",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
    cmdclass={"build_py": BuildWithData},
    zip_safe=False,
)
