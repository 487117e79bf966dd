"""The paper's own scores: Tables 2 and 3."""

# Table 2 of the paper (66,433 test samples of GuitarSet)
PAPER_TABLE_2 = {"frozen": (0.6025, 0.5431), "finetuned": (0.9126, 0.8540)}
# Table 3 of the paper: F1 of baseline and fine-tuned model
PAPER_TABLE_3 = {
    "overdrive": (0.5802, 0.9537),
    "distortion": (0.7978, 0.9977),
    "chorus": (0.6134, 0.9484),
    "flanger": (0.4143, 0.8857),
    "phaser": (0.4775, 0.9215),
    "tremolo": (0.3548, 0.8263),
    "reverb": (0.6225, 0.9607),
    "feedback_delay": (0.9792, 0.9873),
    "slapback_delay": (0.7034, 0.9756),
    "low_boost": (0.7143, 0.9836),
    "low_reduct": (0.6494, 0.9714),
    "high_boost": (0.0000, 0.1429),
    "high_reduct": (0.1538, 0.5474),
}
