"""Lineage: OpenLineage run events, told of audit records and of days, and where they go. JSON until they are sent."""
