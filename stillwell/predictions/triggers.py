"""Which writes ask for which refreshes: from entities of a view to the hints of the models that read it. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from stillwell.layout.entity_key import values_of
from stillwell.predictions.hint import Cause, Hint
from stillwell.spec import DefinitionsSpec, ModelSpec


class Triggers:
    """Of the models in some definitions."""

    def __init__(self, definitions: DefinitionsSpec) -> None:
        self._models: dict[str, list[ModelSpec]] = {}
        views = {view.name for view in definitions.views}
        for model in definitions.models:
            for source in model.refresh_on_write:
                if source in views:
                    self._models.setdefault(source, []).append(model)

    def concern(self, view: str) -> bool:
        """Whether writes to a view ask for any refresh."""
        return view in self._models

    def hints(self, written: Iterable[tuple[str, Sequence[bytes]]]) -> list[Hint]:
        """What asks for the refreshes of these entities of views; each prediction is asked for once."""
        found: dict[tuple[str, bytes], Hint] = {}
        for view, keys in written:
            for model in self._models.get(view, ()):
                for key in keys:
                    if (model.name, key) not in found:
                        values: Mapping[str, object] = values_of(model.entity.keys, key)
                        found[model.name, key] = Hint(model.name, key, b"", values, Cause.WRITE)
        return list(found.values())
