"""An example, to be replaced by topics of your own: `stillwell topics infer TOPIC` writes the first draft of one."""

from datetime import timedelta

from stillwell import Bool, Col, Entity, Feature, Float64, Int64, Key, String, Timestamp, Topic, View, col, feature


class Customer(Entity):
    """Somebody who buys."""

    customer: Key[String]


class Order(Topic, name="shop.orders", event_time="placed_at"):
    """An order that was placed. A record that is not what these columns say becomes a dead letter, with the reason."""

    placed_at: Col[Timestamp]
    customer: Col[String] = col(path="buyer.id")
    country: Col[String | None] = col(path="buyer.address.country")
    amount: Col[Float64] = col(gt=0)
    items: Col[Int64] = col(ge=1, le=1000)
    coupon: Col[String | None]


class LastOrder(View, source=Order, entity=Customer, keys={"customer": Order.customer}, ttl=timedelta(days=90)):
    """The latest order of a customer. Older ones that come late do not replace it."""

    amount: Feature[Float64] = feature(Order.amount)
    large: Feature[Bool] = feature(Order.amount > 100, description="over a hundred")
    per_item: Feature[Float64] = feature(Order.amount / Order.items)
    country: Feature[String] = feature(Order.country.fill_null("unknown"))
    used_coupon: Feature[Bool] = feature(Order.coupon.is_not_null())
