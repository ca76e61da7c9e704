"""What a query service has, as its OpenAPI document says: for whoever asks by names and has no definitions."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import NotDefined, RequestError
from stillwell.wording import shorten

_decode = msgspec.json.Decoder().decode


class Offered:
    """The features, feature services and models of a query service."""

    def __init__(self, document: bytes) -> None:
        """Raises ValueError for what is no document of a query service."""
        try:
            paths = _decode(document)["paths"]
            words = paths["/v1/features"]["get"]["parameters"]
            schemas: dict[str, Any] = {each["name"]: each["schema"] for each in words}
            self._features: Sequence[str] = schemas["features"]["items"]["enum"]
            self._keys: Collection[str] = schemas.keys()
            self._services: Collection[str] = schemas.get("feature_service", {}).get("enum", ())
            self.models: Collection[str] = _models(paths)
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError) as error:
            raise ValueError(f"its OpenAPI document does not say which features there are: {error!r}") from None

    def asked(self, names: Sequence[str]) -> tuple[Sequence[str], str | None]:
        """The features that names stand for, or the feature service that stands alone. A view, an alias, an on-demand
        view or a model stands for all that it has. Raises RequestError and NotDefined."""
        if len(names) == 1 and names[0] in self._services:
            return (), names[0]
        found: dict[str, None] = {}
        for name in names:
            if name in self._services:
                raise RequestError("feature_service", f"{name} is asked for alone, without features beside it")
            found |= dict.fromkeys([name] if ":" in name else self._of(name))
        return list(found), None

    def _of(self, owner: str) -> Sequence[str]:
        """Raises NotDefined."""
        own = [feature for feature in self._features if feature.partition(":")[0] == owner]
        if not own and owner in self._keys:
            raise RequestError(owner, f"has no value; write {owner}=…")
        if not own:
            known = {*(feature.partition(":")[0] for feature in self._features), *self._services}
            raise NotDefined("features", f"there is no view {shorten(owner)!r}{did_you_mean(owner, known)}")
        return own


def _models(paths: dict[str, Any]) -> Collection[str]:
    """The names that predictions can be asked of by. Raises LookupError and TypeError."""
    if "/v1/predictions" not in paths:
        return ()
    words = {each["name"]: each["schema"] for each in paths["/v1/predictions"]["get"]["parameters"]}
    models: Collection[str] = words["model"]["enum"]
    return models
