from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "tf_lap" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

LITERT = ["ai-edge-litert>=2.0"]
DEMO = [*LITERT, "scikit-learn>=1.3", "matplotlib>=3.8"]

setup(
    name="tf_lap",
    version=VERSION,
    description="Lookahead pruning of Keras models: ranks weights by what feeds them and what reads them",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tf_lap", "tf_lap.*"]),
    package_data={"tf_lap": ["py.typed"]},
    python_requires=">=3.10",
    # TensorFlow 2.16 lets AutoGraph rewrite tf_keras's own code, so that a pruning wrapper does not find the model
    # it is called in. Keras before 3.7 loses the last execution of an epoch if it is shorter than
    # steps_per_execution. tests/versions.sh runs the suite with the lowest of these, a middle and the newest.
    install_requires=[
        "tensorflow>=2.17",
        "keras>=3.7",
        "tf_keras>=2.17",
        "tensorflow-model-optimization>=0.8",
        "numpy>=1.26",
        "absl-py>=1.2",
    ],
    extras_require={
        "litert": LITERT,
        "demo": DEMO,
        "benchmarks": [*DEMO, "torch>=2.4"],
        "test": [*DEMO, "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.6", "tensorboard>=2.17"],
    },
    entry_points={"console_scripts": ["tf-lap=tf_lap.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
