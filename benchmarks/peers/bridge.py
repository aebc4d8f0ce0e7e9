"""TransformerBridge.generate with a hook; prompts one at a time."""

from importlib.metadata import version

import hooked
from common import main

hooked.ENGINE = "bridge"
main("TransformerBridge", version("transformer-lens"), hooked.build, hooked.write)
