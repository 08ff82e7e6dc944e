"""The one ``MetaData`` on which every room declares its tables, so that migrations see them all.

Full-text indexes are no tables that SQLAlchemy knows: rooms declare their names under ``TEXTS`` in its ``info``.
"""

from sqlalchemy import MetaData

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: key in ``metadata.info``: the names of the full-text indexes
TEXTS = "texts"
