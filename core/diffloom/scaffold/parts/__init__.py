"""The components that `diffloom new-plugin` copies into a package, one module for each kind, as they are."""
