"""The API for programs: routes, schemas, admission."""
