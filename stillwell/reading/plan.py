"""What a list of features needs from the online store, worked out once for all requests that ask for the same.

`stillwell.reading.catalog` makes it from names, `stillwell.reading.features` carries it out.
"""

import dataclasses
import enum
from collections.abc import Mapping

from stillwell.layout.projection import Projection
from stillwell.on_demand import OnDemand
from stillwell.reading.whole import WholePlan
from stillwell.spec import FeatureSpec, KeySpec, ModelSpec, RequestColumnSpec, ViewSpec
from stillwell.types import FieldType

Place = tuple[str, tuple[str, ...]]
"""Where rows are: of which view, and which columns of a request have the keys."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lookup:
    """The rows of one view. columns: for each key of its entity, in their order, the request's column that has it.

    alike: the first lookup of the plan that makes the same entity keys of the same columns. ttl_us, freshness_us: the
    view's, None where it has none.
    """

    view: ViewSpec
    columns: tuple[str, ...]
    projection: Projection
    alike: int
    ttl_us: int | None
    freshness_us: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class StoredInput:
    """A stored feature that a computation reads: as its expressions name it, which lookup has it, and as which of its
    columns."""

    qualified: str
    type: FieldType
    lookup: int
    column: int


@dataclasses.dataclass(frozen=True, slots=True)
class RequestInput:
    """A request's column that a computation reads: as its expressions name it, and as the request does."""

    qualified: str
    name: str
    type: FieldType


@dataclasses.dataclass(frozen=True, slots=True)
class Computation:
    """The features of one on-demand view, and where what they read comes from."""

    view: str
    on_demand: OnDemand
    stored: tuple[StoredInput, ...]
    requested: tuple[RequestInput, ...]


class Kind(enum.Enum):
    """Where an output comes from: the rows of a lookup, a computation, or a model."""

    STORED = "stored"
    COMPUTED = "computed"
    PREDICTED = "predicted"


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """One feature of the answer: `view:name`, and where it comes from: which of the plan's lookups, computations or
    models (by kind), and which of its columns. view: the view, alias, on-demand view or model that requests name it
    by."""

    view: str
    feature: FeatureSpec
    kind: Kind
    source: int
    column: int

    @property
    def name(self) -> str:
        """Without its view."""
        return self.feature.name

    @property
    def reference(self) -> str:
        """As requests name it."""
        return f"{self.view}:{self.feature.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """join_keys: the columns of a request that rows are looked up by, and the type of each. request_columns: those that
    are computed with. required: what a request must have; a column that is computed with and may be null can be left
    out. whole: reads what is looked up, where nothing is to be computed besides, and no model asked.

    Known of each once, because every request needs it: views, of the lookups by name; places, their numbers by where
    their rows are; sources, of the outputs; plain: whether no output is a time, or has some; objectives: the lookups of
    views that have one; of_one_key: whether all lookups make the same entity keys.
    """

    join_keys: Mapping[str, KeySpec]
    request_columns: Mapping[str, RequestColumnSpec]
    required: tuple[str, ...]
    lookups: tuple[Lookup, ...]
    computations: tuple[Computation, ...]
    outputs: tuple[Output, ...]
    models: tuple[ModelSpec, ...] = ()
    """Whose predictions are asked for."""
    views: tuple[str, ...] = ()
    places: Mapping[Place, int] = dataclasses.field(default_factory=dict)
    sources: tuple[int, ...] = ()
    plain: bool = False
    objectives: tuple[int, ...] = ()
    of_one_key: bool = False
    whole: WholePlan | None = dataclasses.field(default=None, compare=False, repr=False)
    catalog: object = dataclasses.field(default=None, compare=False, repr=False)
    """What made it: another catalog knows other versions of the views."""

    @property
    def columns(self) -> Mapping[str, FieldType]:
        """Every column that it takes, and its type, keys first."""
        keys = {name: key.type for name, key in self.join_keys.items()}
        return keys | {name: column.type for name, column in self.request_columns.items()}
