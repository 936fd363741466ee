"""An application whose own module needs what is not there."""

import no_such_package  # type: ignore[import-not-found]

app = no_such_package
