"""Part IV: networks that stand in for a synthesizer, and the rulers that they are held to."""
