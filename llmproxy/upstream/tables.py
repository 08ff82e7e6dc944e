"""Rows of the upstream room: which model was last seen behind which name."""

from sqlalchemy import Column, Double, Table, Text

from llmproxy.database.metadata import metadata

model_identities = Table(
    "model_identities",
    metadata,
    Column("upstream", Text, primary_key=True),
    #: the name; "" stands for every name that is not listed
    Column("model", Text, primary_key=True),
    Column("identity", Text, nullable=False),
    Column("kind", Text, nullable=False),
    #: Unix seconds
    Column("seen_at", Double, nullable=False),
)
