"""Part III: the encoder adapted by few trained numbers, and what is lost on the way."""

import logging

# peft imports bitsandbytes, which asks in vain for kernels that nothing here needs, and says so
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
