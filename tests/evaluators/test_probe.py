"""What readers get from a code: laws on planted classes."""

import sys
import types

import made_contexts
import numpy as np
import pytest
from sklearn import cluster, decomposition, linear_model, metrics, neighbors, preprocessing

from ae_jax.data import Dataset
from ae_jax.evaluators import figures, probe
from ae_jax.evaluators.context import EvalContext, shown

FEATURES = ("code", "pca", "pixels")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(probe, "_MAP_ITERATIONS", 250)  # the fewest of t-SNE


def subject_of(train, test, train_labels, test_labels, latent=2, encode=lambda x: x.reshape(len(x), -1)[:, :2], seed=0):
  """A context whose code of an example is what `encode` makes of it: its first two numbers."""
  apply = lambda method, x, given: encode(x)
  config = types.SimpleNamespace(seed=seed)
  run = types.SimpleNamespace(apply=apply, config=config, model=made_contexts.fake_model(latent))
  return EvalContext(run, Dataset("made", "real", train, test, train_labels, test_labels))


def analyze(*arrays, **options):
  found = list(probe.EVALUATOR.analyze(subject_of(*arrays, **options)))
  assert len(dict(found)) == len(found)
  assert all(isinstance(value, float | str | figures.Points | figures.Bars) for _, value in found)
  return dict(found)


def blobs(count, seed=0, apart=60.0):
  """Examples [count, 4, 1] of three classes that lie apart, whose last two numbers say the same as the first two."""
  generator = np.random.default_rng(seed)
  labels = np.arange(count) % 3
  centres = apart * np.array([[0, 0], [1, 0], [0, 1]])[labels]
  x = generator.normal(size=(count, 4)) + np.concatenate([centres, centres], 1)
  return x[..., None].astype(np.float32), labels


def pairs(train=90, test=60, **options):
  """Training and test examples and their labels, in the order of `analyze`'s arguments."""
  (x, labels), (y, others) = blobs(train, **options), blobs(test, 1, **options)
  return x, y, labels, others


def numbers(values):
  return {name: value for name, value in values.items() if isinstance(value, float)}


def test_classes_that_lie_apart_are_read_without_a_mistake():
  found = analyze(*pairs())
  for features in FEATURES:
    for measure in ("linear", "knn", "linear_few", "knn_few", "kmeans_nmi", "kmeans_ari"):
      assert found[f"{measure}/{features}"] == pytest.approx(1.0), (measure, features)
  assert found["accuracy"].names == tuple(
    f"{reader} of {what}" for reader in ("linear", "knn") for what in ("code", "PCA", "pixels")
  )
  assert found["accuracy"].values.tolist() == [1.0] * 6


def test_labels_that_the_code_knows_nothing_of_are_guessed():
  train, test = (np.random.default_rng(n).normal(size=(n, 4, 1)).astype(np.float32) for n in (600, 601))
  found = analyze(train, test, np.arange(600) % 2, np.arange(601) % 2)
  for measure in ("linear", "knn", "linear_few"):
    assert found[f"{measure}/code"] == pytest.approx(0.5, abs=0.08)
  assert found["linear_few_low/code"] <= found["linear_few/code"] <= found["linear_few_high/code"]
  assert abs(found["kmeans_ari/code"]) < 0.02


def test_what_only_the_pixels_know_is_read_from_the_pixels_alone():
  x, y, labels, others = pairs()
  hidden = lambda x: np.random.default_rng(len(x)).normal(size=(len(x), 2)).astype(np.float32)
  found = analyze(x, y, labels, others, encode=hidden)
  assert found["linear/pixels"] == found["knn/pixels"] == found["knn/pca"] == 1.0
  assert max(found["linear/code"], found["knn/code"]) < 0.6


def test_a_linear_reader_finds_what_only_the_small_difference_of_two_numbers_says():
  halves = []
  for seed in (0, 1):
    x, labels = np.random.default_rng(seed).normal(size=(600, 4, 1)), np.arange(600) % 2
    x[:, 1, 0] = x[:, 0, 0] + 0.1 * labels
    halves.append((x.astype(np.float32), labels))
  (x, labels), (y, others) = halves
  assert analyze(x, y, labels, others)["linear/code"] > 0.95


def tied(seed, count, nuisance):
  """Two classes that lie apart along the second of three numbers only; the first varies more, and the last by this."""
  generator, labels = np.random.default_rng(seed), np.arange(count) % 2
  x = generator.normal(size=(count, 3)) * [20.0, 0.1, nuisance] + np.outer(labels, [0.0, 10.0, 0.0])
  return x[..., None].astype(np.float32), labels


@pytest.mark.parametrize(("latent", "read"), [(1, False), (2, True)])
def test_as_many_principal_components_are_read_as_a_code_has_numbers_and_they_are_the_training_examples(latent, read):
  (x, labels), (y, others) = tied(0, 200, 0.0), tied(1, 200, 1000.0)
  found = analyze(x, y, labels, others, latent=latent)
  assert (found["linear/pca"] == 1.0) == (found["knn/pca"] == 1.0) == read
  assert read or max(found["linear/pca"], found["knn/pca"]) < 0.65


def test_of_many_test_examples_readers_are_tested_on_some_at_even_distances_each_with_its_own_label(monkeypatch):
  monkeypatch.setattr(probe, "TESTED", 20)
  x, y, labels, others = pairs()
  order, tested = np.random.default_rng(0).permutation(60), np.isin(np.arange(60), shown(20, 60))
  y, others = y[order], others[order]
  found = numbers(analyze(x, y, labels, np.where(tested, others, (others + 1) % 3)))
  assert len(found) == 3 * 10
  assert set(found.values()) == {1.0}


def test_of_few_labels_there_is_the_mean_of_all_draws_and_the_lowest_and_the_highest(monkeypatch):
  scores = []

  class Made:
    fit = lambda self, train, labels: self
    score = lambda self, test, labels: scores.pop(0)

  monkeypatch.setattr(probe, "READERS", {"made": lambda examples: Made()})
  scores += 3 * [0.75, 0.0, 0.0, 1.0, 0.5, 0.0]
  found = analyze(*pairs())
  for name in FEATURES:
    assert found[f"made/{name}"] == 0.75
    assert [found[f"made_few{end}/{name}"] for end in ("", "_low", "_high")] == pytest.approx([0.3, 0.0, 1.0])


def test_standardised_a_number_that_hardly_varies_is_read_like_any_other_and_a_constant_one_is_no_mistake():
  x, y, labels, others = pairs()
  scale = np.array([1e-4, 1e4, 0.0, 1.0], np.float32)[:, None]
  plain, scaled = analyze(x, y, labels, others), analyze(x * scale, y * scale, labels, others)
  for measure in ("linear", "knn", "linear_few", "kmeans_nmi"):
    assert scaled[f"{measure}/code"] == pytest.approx(plain[f"{measure}/code"])
    assert np.isfinite(scaled[f"{measure}/pixels"])


def test_readers_are_scikit_learns_on_standardised_examples_and_few_labels_a_mean_over_draws():
  x, y, labels, others = pairs(apart=1.5)
  found, codes, tests = analyze(x, y, labels, others), x[:, :2, 0], y[:, :2, 0]
  codes, tests = ((each - codes.mean(0)) / codes.std(0) for each in (codes, tests))
  classifiers = {"linear": linear_model.LogisticRegression(tol=1e-8, max_iter=10_000)}
  classifiers["knn"] = neighbors.KNeighborsClassifier(5)
  for name, classifier in classifiers.items():
    wanted = classifier.fit(codes, labels).score(tests, others)
    assert found[f"{name}/code"] == pytest.approx(wanted, abs=1.01 / len(others))  # one example may lie on the border
    assert 0.4 < wanted < 0.9
  generator = np.random.default_rng(0)
  draws = [probe.few(labels, generator) for _ in range(5)]
  scores = [classifiers["knn"].fit(codes[draw], labels[draw]).score(tests, others) for draw in draws]
  values = [found[f"knn_few{end}/code"] for end in ("", "_low", "_high")]
  assert values == pytest.approx([np.mean(scores), min(scores), max(scores)], abs=0.5 / len(others))
  assert min(scores) < max(scores)


def test_nothing_depends_on_the_order_of_the_test_examples():
  x, y, labels, others = pairs(test=61, apart=1.5)
  order = np.random.default_rng(0).permutation(61)
  one, other = (numbers(analyze(x, y[each], labels, others[each])) for each in (np.arange(61), order))
  assert len(one) == 3 * 10
  assert one == pytest.approx(other, abs=1e-6)


def test_the_same_run_finds_the_same_and_only_the_draws_depend_on_its_seed():
  arrays = pairs(apart=1.5)
  one, again, other = analyze(*arrays), analyze(*arrays), analyze(*arrays, seed=1)
  assert numbers(one) == numbers(again)
  np.testing.assert_array_equal(one["latent_map"].views["t-SNE"], again["latent_map"].views["t-SNE"])
  assert {name for name, value in numbers(one).items() if value != other[name] and "few" not in name} == set()
  assert any(one[name] != other[name] for name in numbers(one))


def test_clusters_agree_as_scikit_learn_has_it_whatever_the_classes_are_called():
  x, y, _, labels = pairs(apart=2.0)
  train, test = x[..., 0], y[..., 0]
  nmi, ari = probe.agreement(train, test, labels)
  clusters = cluster.KMeans(3, n_init=4, random_state=0).fit(train).predict(test)
  assert nmi == pytest.approx(metrics.normalized_mutual_info_score(labels, clusters))
  assert ari == pytest.approx(metrics.adjusted_rand_score(labels, clusters))
  assert 0.1 < ari < 0.9
  assert probe.agreement(train, test, 7 - 2 * labels) == pytest.approx((nmi, ari))


def test_clusters_are_of_standardised_numbers_and_the_two_measures_are_not_mistaken_for_each_other():
  x, y, labels, others = pairs(apart=2.0)
  x[:, 3], y[:, 3] = (1e3 * np.random.default_rng(n).normal(size=(n, 1)) for n in (90, 60))
  scaler = preprocessing.StandardScaler().fit(x[..., 0])
  nmi, ari = probe.agreement(*(scaler.transform(each[..., 0]) for each in (x, y)), others)
  found = analyze(x, y, labels, others)
  assert (found["kmeans_nmi/pixels"], found["kmeans_ari/pixels"]) == pytest.approx((nmi, ari))
  assert nmi > ari + 0.02
  assert ari > 0.3 > probe.agreement(x[..., 0], y[..., 0], others)[1]


def test_few_labels_are_as_many_of_each_class():
  labels = np.repeat([3, 5, 7], [40, 10, 9])
  drawn = probe.few(labels, np.random.default_rng(0))
  assert len(np.unique(drawn)) == len(drawn)
  assert np.unique(labels[drawn], return_counts=True)[1].tolist() == [probe.FEW] * 2  # the third has too few
  assert len(probe.few(labels[:40], np.random.default_rng(0))) == 0


@pytest.mark.parametrize(("counts", "there"), [((60, 25, 5), True), ((71, 10, 9), True), ((81, 5, 4), False)])
def test_classes_of_too_few_examples_are_told(counts, there):
  x, y, _, others = pairs()
  found = analyze(x, y, np.repeat([0, 1, 2], counts), others)
  assert f"of 3 classes {sum(count < 10 for count in counts)} have less than 10 training examples" in found["few"]
  assert ("linear_few/code" in found) == there
  assert "linear/code" in found


@pytest.mark.parametrize(
  ("labels", "said"),
  [
    (None, "no integer labels"),
    (np.zeros(30), "no integer labels"),
    (np.zeros(30, int), "have one label"),
    (np.arange(30) + 0.5, "no integer labels"),
  ],
)
def test_without_labels_there_is_a_map_and_a_remark(labels, said):
  x, _ = blobs(30)
  found = analyze(x, x, labels, labels)
  assert found.keys() == {"latent_map", "remark"}
  assert said in found["remark"]
  assert not found["latent_map"].labels.any()


def test_too_many_classes_are_not_read(monkeypatch):
  monkeypatch.setattr(probe, "_MOST_CLASSES", 3)
  assert "remark" not in analyze(*pairs())
  monkeypatch.setattr(probe, "_MOST_CLASSES", 2)
  assert "have 3 labels" in analyze(*pairs())["remark"]


def test_clusters_need_two_classes_and_large_examples_are_not_read_bare(monkeypatch):
  x, y, labels, others = pairs()
  monkeypatch.setattr(probe, "MOST_PIXELS", 4)
  assert "linear/pixels" in analyze(x, y, labels, others)
  monkeypatch.setattr(probe, "MOST_PIXELS", 3)
  found = analyze(x, y[others == 1], labels, others[others == 1])
  assert "one label" in found["kmeans"]
  assert "4 numbers" in found["pixels"]
  assert not any("pixels" in name or "kmeans" in name for name in numbers(found))
  assert found["accuracy"].names == ("linear of code", "linear of PCA", "knn of code", "knn of PCA")
  assert found["linear/code"] == 1.0


@pytest.mark.parametrize("count", [1, 2, 11, 40])
def test_a_map_shows_any_number_of_examples(count):
  x, labels = blobs(count)
  map_of = analyze(x, x, labels, labels)["latent_map"]
  assert figures.fault(map_of) is None
  assert all(np.isfinite(view).all() for view in map_of.views.values())
  assert ("t-SNE" in map_of.views) == (count > 10)
  np.testing.assert_array_equal(map_of.labels, labels)


def test_a_map_shows_a_thousand_examples_at_most(monkeypatch):
  monkeypatch.setattr(probe, "MAPPED", 20)
  x, labels = blobs(90)
  map_of = analyze(x, x, labels, labels)["latent_map"]
  assert len(map_of.examples) == 20
  rows = [np.flatnonzero((x == example).all((1, 2)))[0] for example in map_of.examples]
  np.testing.assert_array_equal(rows, shown(20, 90))
  np.testing.assert_array_equal(labels[rows], map_of.labels)
  distances = [metrics.pairwise_distances(points) for points in (map_of.views["PCA"], x[rows, :2, 0])]
  np.testing.assert_allclose(*distances, rtol=1e-3, atol=1e-3)


def test_the_first_view_is_of_the_two_principal_components_around_the_mean():
  codes = np.random.default_rng(0).normal(size=(40, 5)) * [1.0, 5.0, 2.0, 0.5, 3.0] + [9.0, 0.0, -9.0, 20.0, 0.0]
  wanted = decomposition.PCA(2).fit_transform(codes)
  np.testing.assert_allclose(np.abs(probe._by_pca(codes)), np.abs(wanted), atol=1e-9)


def test_a_map_of_neighbours_is_the_same_again_and_whatever_the_scale_of_the_codes():
  line, plane = np.arange(40.0)[:, None], np.random.default_rng(0).normal(size=(40, 2))
  np.testing.assert_array_equal(probe._by_tsne(line), probe._by_tsne(line))
  np.testing.assert_array_equal(probe._by_tsne(plane), probe._by_tsne(2.0**-70 * plane))


@pytest.mark.parametrize("codes", [np.zeros((40, 3)), np.c_[np.arange(40.0)], 1e-20 * np.arange(80.0).reshape(40, 2)])
def test_codes_that_lie_in_a_point_or_on_a_line_have_a_map(codes):
  x, labels = blobs(40)
  views = analyze(x, x, labels, labels, encode=lambda x: codes.astype(np.float32))["latent_map"].views
  assert all(np.isfinite(view).all() for view in views.values())
  assert ("t-SNE" in views) == bool(codes.any())


def test_classes_keep_together_in_the_map():
  x, labels = blobs(60)
  for view in analyze(x, x, labels, labels)["latent_map"].views.values():
    assert metrics.silhouette_score(view, labels) > 0.5


def test_umap_has_a_view_where_it_is_installed(monkeypatch):
  x, labels = blobs(40)
  monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not
  assert "UMAP" not in analyze(x, x, labels, labels)["latent_map"].views
  made = types.SimpleNamespace(fit_transform=lambda codes: codes[:, :2])
  monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=lambda random_state: made))
  np.testing.assert_allclose(analyze(x, x, labels, labels)["latent_map"].views["UMAP"], x[:, :2, 0], rtol=1e-6)
