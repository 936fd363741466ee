"""An application module that imports a missing package."""

import no_such_package  # type: ignore[import-not-found]

app = no_such_package
