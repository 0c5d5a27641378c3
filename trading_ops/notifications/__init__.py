"""Tell people: alerts, where they go, and the outbox that loses none of them."""
