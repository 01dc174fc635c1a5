"""Put any Python function behind the batcher: here a forest that scikit-learn runs itself.

    pip install scikit-learn && python examples/wrap_callable.py

Validation, batching, deadlines and figures are the same as for a compiled model.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier

import inferkit


def main() -> None:
    with np.load(Path(__file__).resolve().parent / "digits_test.npz") as held_out:
        images, labels = held_out["images"].astype(np.float32), held_out["labels"]
    forest = RandomForestClassifier(50, random_state=0, n_jobs=1).fit(images[:300], labels[:300])

    model = inferkit.Model.from_callable(
        lambda x: forest.predict_proba(x).astype(np.float32),
        inputs=[("image", "float32", (None, 64))],
        outputs=[("probabilities", "float32", (None, 10))],
    )
    with inferkit.Batcher(model, max_batch_size=64) as batcher, ThreadPoolExecutor(8) as pool:
        answers = np.stack(list(pool.map(batcher, images[300:])))
        print(f"accuracy {(answers.argmax(axis=1) == labels[300:]).mean():.3f}")
        print(f"mean batch {batcher.stats().mean_batch_size:.1f} rows")
        try:
            batcher(np.full(64, np.nan, np.float32))
        except inferkit.ValidationError as error:
            print(f"refused ({error.reason}): {error}")


if __name__ == "__main__":
    main()
