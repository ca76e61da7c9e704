"""All that can be asked for, by name, and the plan for any list of it.

A feature is named `<view, alias or on-demand view>:<feature>`, an output of a model `<model>:<output>`. A view is
looked up by the columns of the request that are called as the keys of its entity are, an alias by those of the entity
that leads to it. Pure: nothing here reads a store or a clock.
"""

from collections.abc import Iterable, Mapping, Sequence

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import NotDefined, RequestError
from stillwell.reading.drafting import Draft, Named, features_of
from stillwell.reading.plan import Kind, Output, Plan
from stillwell.spec import DefinitionsSpec, FeatureSpec, ModelSpec, OnDemandSpec, RequestColumnSpec, ViewSpec
from stillwell.types import FieldType
from stillwell.wording import shorten

_SHOWN = 3
"""Features that a message names of a view: what they look like, not all that there are."""


class Catalog:
    """All that can be asked for, by the names that requests use."""

    def __init__(self, definitions: DefinitionsSpec, versions: Iterable[ViewSpec] = ()) -> None:
        """versions: other versions of the views, whose rows may still be in the store."""
        named: list[Named] = [*definitions.views, *definitions.aliases, *definitions.on_demand]
        self._named = {each.name: each for each in named}
        self._models = {model.name: model for model in definitions.models}
        self._requests = {request.name: request for request in definitions.requests}
        self._services = {service.name: service for service in definitions.services}
        self._older: dict[str, list[ViewSpec]] = {}
        for version in versions:
            self._older.setdefault(version.name, []).append(version)
        of_requests = {column.name: column.type for request in definitions.requests for column in request.columns}
        of_entities = {key.name: key.type for entity in definitions.entities for key in entity.keys}
        self.keys: Mapping[str, FieldType] = of_requests | of_entities
        """Every column that a request may have, though it need not."""

    def references(self, features: Sequence[str], service: str | None) -> Sequence[str]:
        """What a request asks for, which names either features or a feature service. Raises RequestError."""
        if service is None:
            return features
        if features:
            raise RequestError("feature_service", "is given beside features; ask for one of them")
        return self.service(service)

    def service(self, name: str) -> tuple[str, ...]:
        """The features of a feature service, as `plan` takes them. Raises NotDefined."""
        if name not in self._services:
            if those := self._features_of(name):
                raise NotDefined("feature_service", f"{name} is no feature service; name features, as {those}")
            near = did_you_mean(name, self._services)
            raise NotDefined("feature_service", f"there is no feature service {shorten(name)!r}{near}")
        return self._services[name].features

    def plan(self, references: Sequence[str]) -> Plan:
        """What these features need. Raises RequestError for one that is unknown or named twice, and where two of them
        want different things of one column."""
        if not references:
            raise RequestError("features", "name at least one, as <view>:<feature>")
        draft = Draft(self, self._older)
        outputs = tuple(self._output(reference, number, draft) for number, reference in enumerate(references))
        if len(set(references)) < len(references):
            twice = next(each for number, each in enumerate(references) if each in references[:number])
            raise RequestError("features", f"{shorten(twice)!r} is named twice; name each once")
        return draft.plan(outputs)

    def _output(self, reference: str, number: int, draft: Draft) -> Output:
        """Add what a reference names to what is wanted; gives where it will come from."""
        field = f"features[{number}]"
        owner, colon, name = reference.partition(":")
        if colon and owner in self._models:
            return self._predicted(self._models[owner], name, field, draft)
        if not colon:
            those = self._features_of(reference)
            meant = f", as {those}" if those else self._owner_of(reference)
            if reference in self._services:
                meant = "; it is a feature service: name it as `feature_service`, without `features`"
            raise RequestError(field, f"{shorten(reference)!r} must be <view>:<feature>{meant}")
        if owner not in self._named:
            near = did_you_mean(owner, {*self._named, *self._models})
            raise NotDefined(field, f"there is no view {shorten(owner)!r}{near}")
        named = self._named[owner]
        features = {feature.name: feature for feature in features_of(named)}
        if name not in features:
            raise NotDefined(field, f"{owner} has no feature {shorten(name)!r}{did_you_mean(name, features)}")
        if isinstance(named, OnDemandSpec):
            return Output(owner, features[name], Kind.COMPUTED, *draft.computed(named, name))
        return Output(owner, features[name], Kind.STORED, *draft.stored(named, features[name]))

    def model(self, name: str) -> ModelSpec:
        """A model. Raises NotDefined."""
        if not self._models:
            raise NotDefined(
                "model",
                "the definitions have no model, so that there are no predictions: write a Model, and start workers and "
                "query service anew. Features are read without one",
            )
        if name in self._named:
            raise NotDefined("model", f"{name} is no model; read its features, as {self._features_of(name)}")
        if name not in self._models:
            raise NotDefined("model", f"there is no model {shorten(name)!r}{did_you_mean(name, self._models)}")
        return self._models[name]

    def _predicted(self, model: ModelSpec, name: str, field: str, draft: Draft) -> Output:
        """Add a model's output to what is wanted; gives where it will come from."""
        outputs = {output.name: at for at, output in enumerate(model.outputs)}
        if name not in outputs:
            raise NotDefined(field, f"{model.name} has no output {shorten(name)!r}{did_you_mean(name, outputs)}")
        output = model.outputs[outputs[name]]
        feature = FeatureSpec(
            name=name,
            type=output.type,
            nullable=output.nullable,
            expression=None,
            description=output.description,
        )
        number = draft.predicted(model, self._asked_by(model))
        return Output(model.name, feature, Kind.PREDICTED, number, outputs[name])

    def _asked_by(self, model: ModelSpec) -> list[RequestColumnSpec]:
        """The columns of requests that a model's inputs need."""
        columns: list[RequestColumnSpec] = []
        features: dict[str, None] = {}
        for given in model.inputs:
            owner, _, name = given.reference.partition(":")
            if owner in self._requests:
                columns += [column for column in self._requests[owner].columns if column.name == name]
            else:
                features[given.reference] = None
        if features:
            columns += self.plan(list(features)).request_columns.values()
        return columns

    def _features_of(self, owner: str) -> str:
        """How the first features of a view, or of what stands in its place, are asked for; empty if there is none."""
        if owner in self._models:
            names = [output.name for output in self._models[owner].outputs]
        elif owner in self._named:
            names = [feature.name for feature in features_of(self._named[owner])]
        else:
            return ""
        shown = ", ".join(f"{owner}:{name}" for name in names[:_SHOWN])
        return f"{shown}, …" if len(names) > _SHOWN else shown

    def _owner_of(self, name: str) -> str:
        owners = [owner for owner, each in self._named.items() if any(its.name == name for its in features_of(each))]
        return f"; did you mean {owners[0]}:{name}?" if owners else ""


def any_output(model: ModelSpec) -> str:
    """A reference to a model: one of its outputs, whose plan has what a prediction needs."""
    return f"{model.name}:{model.outputs[0].name}"
