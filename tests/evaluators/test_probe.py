"""Probes of the latent code, on data with known classes."""

import sys
import types

import made_contexts
import numpy as np
import pytest
from sklearn import cluster, decomposition, linear_model, metrics, neighbors, preprocessing

from ae_jax.data import Dataset
from ae_jax.evaluators import figures, probe
from ae_jax.evaluators.context import EvalContext, spaced

FEATURES = ("code", "pca", "pixels")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(probe, "_MAP_ITERATIONS", 250)  # the minimum of t-SNE


def context_of(train, test, train_labels, test_labels, latent=2, encode=lambda x: x.reshape(len(x), -1)[:, :2], seed=0):
  """Returns a context whose latent codes are `encode` of the examples: by default their first two elements."""
  run = made_contexts.fake_run(made_contexts.fake_model(latent), lambda method, x, given: encode(x), seed)
  return EvalContext(run, Dataset("made", "real", train, test, train_labels, test_labels))


def analyze(*arrays, **options):
  results = list(probe.EVALUATOR.analyze(context_of(*arrays, **options)))
  assert len(dict(results)) == len(results)
  assert all(isinstance(value, float | str | figures.Points | figures.Bars) for _, value in results)
  return dict(results)


def blobs(count, seed=0, apart=60.0):
  """Returns examples [count, 4, 1] of three separate classes; elements 3 and 4 repeat 1 and 2 with other noise."""
  generator = np.random.default_rng(seed)
  labels = np.arange(count) % 3
  centres = apart * np.array([[0, 0], [1, 0], [0, 1]])[labels]
  x = generator.normal(size=(count, 4)) + np.concatenate([centres, centres], 1)
  return x[..., None].astype(np.float32), labels


def pairs(train=90, test=60, **options):
  """Returns training and test examples and their labels, in the order of the arguments of `analyze`."""
  (x, labels), (y, others) = blobs(train, **options), blobs(test, 1, **options)
  return x, y, labels, others


def numbers(values):
  return {name: value for name, value in values.items() if isinstance(value, float)}


def test_separate_classes_are_classified_without_errors():
  results = analyze(*pairs())
  for features in FEATURES:
    for measure in ("linear", "knn", "linear_few", "knn_few", "kmeans_nmi", "kmeans_ari"):
      assert results[f"{measure}/{features}"] == pytest.approx(1.0), (measure, features)
  assert results["accuracy"].names == tuple(
    f"{name} of {features}" for name in ("linear", "knn") for features in ("latent code", "PCA", "raw elements")
  )
  assert results["accuracy"].values.tolist() == [1.0] * 6


def test_labels_independent_of_the_code_have_chance_accuracy():
  train, test = (np.random.default_rng(n).normal(size=(n, 4, 1)).astype(np.float32) for n in (600, 601))
  results = analyze(train, test, np.arange(600) % 2, np.arange(601) % 2)
  for measure in ("linear", "knn", "linear_few"):
    assert results[f"{measure}/code"] == pytest.approx(0.5, abs=0.08)
  assert results["linear_few_low/code"] <= results["linear_few/code"] <= results["linear_few_high/code"]
  assert abs(results["kmeans_ari/code"]) < 0.02


def test_information_missing_from_the_code_is_only_found_in_the_baselines():
  x, y, labels, others = pairs()
  hidden = lambda x: np.random.default_rng(len(x)).normal(size=(len(x), 2)).astype(np.float32)
  results = analyze(x, y, labels, others, encode=hidden)
  assert results["linear/pixels"] == results["knn/pixels"] == results["knn/pca"] == 1.0
  assert max(results["linear/code"], results["knn/code"]) < 0.6


def test_a_linear_probe_finds_a_small_difference_of_two_latents():
  splits = []
  for seed in (0, 1):
    x, labels = np.random.default_rng(seed).normal(size=(600, 4, 1)), np.arange(600) % 2
    x[:, 1, 0] = x[:, 0, 0] + 0.1 * labels
    splits.append((x.astype(np.float32), labels))
  (x, labels), (y, others) = splits
  assert analyze(x, y, labels, others)["linear/code"] > 0.95


def tied(seed, count, nuisance):
  """Returns two classes that differ in the second of three elements; the first varies more, the last by `nuisance`."""
  generator, labels = np.random.default_rng(seed), np.arange(count) % 2
  x = generator.normal(size=(count, 3)) * [20.0, 0.1, nuisance] + np.outer(labels, [0.0, 10.0, 0.0])
  return x[..., None].astype(np.float32), labels


@pytest.mark.parametrize(("latent", "separable"), [(1, False), (2, True)])
def test_pca_is_fitted_to_training_examples_with_as_many_components_as_latents(latent, separable):
  (x, labels), (y, others) = tied(0, 200, 0.0), tied(1, 200, 1000.0)
  results = analyze(x, y, labels, others, latent=latent)
  assert (results["linear/pca"] == 1.0) == (results["knn/pca"] == 1.0) == separable
  assert separable or max(results["linear/pca"], results["knn/pca"]) < 0.65


def test_large_test_sets_are_represented_by_evenly_spaced_examples_with_their_labels(monkeypatch):
  monkeypatch.setattr(probe, "MAX_TESTED", 20)
  x, y, labels, others = pairs()
  order, tested = np.random.default_rng(0).permutation(60), np.isin(np.arange(60), spaced(20, 60))
  y, others = y[order], others[order]
  results = numbers(analyze(x, y, labels, np.where(tested, others, (others + 1) % 3)))
  assert len(results) == 3 * 10
  assert set(results.values()) == {1.0}


def test_few_labels_have_the_mean_the_lowest_and_the_highest_accuracy_over_draws(monkeypatch):
  scores = []

  class Classifier:
    fit = lambda self, train, labels: self
    score = lambda self, test, labels: scores.pop(0)

  monkeypatch.setattr(probe, "PROBES", {"made": lambda examples: Classifier()})
  scores += 3 * [0.75, 0.0, 0.0, 1.0, 0.5, 0.0]
  results = analyze(*pairs())
  for name in FEATURES:
    assert results[f"made/{name}"] == 0.75
    assert [results[f"made_few{end}/{name}"] for end in ("", "_low", "_high")] == pytest.approx([0.3, 0.0, 1.0])


def test_results_do_not_depend_on_the_scale_of_features_and_constant_ones_are_safe():
  x, y, labels, others = pairs()
  scale = np.array([1e-4, 1e4, 0.0, 1.0], np.float32)[:, None]
  plain, scaled = analyze(x, y, labels, others), analyze(x * scale, y * scale, labels, others)
  for measure in ("linear", "knn", "linear_few", "kmeans_nmi"):
    assert scaled[f"{measure}/code"] == pytest.approx(plain[f"{measure}/code"])
    assert np.isfinite(scaled[f"{measure}/pixels"])


def test_probes_agree_with_scikit_learn_on_standardised_features():
  x, y, labels, others = pairs(apart=1.5)
  results, codes, tests = analyze(x, y, labels, others), x[:, :2, 0], y[:, :2, 0]
  codes, tests = ((split - codes.mean(0)) / codes.std(0) for split in (codes, tests))
  classifiers = {"linear": linear_model.LogisticRegression(tol=1e-8, max_iter=10_000)}
  classifiers["knn"] = neighbors.KNeighborsClassifier(5)
  for name, classifier in classifiers.items():
    expected = classifier.fit(codes, labels).score(tests, others)
    assert results[f"{name}/code"] == pytest.approx(
      expected, abs=1.01 / len(others)
    )  # one example may lie on the border
    assert 0.4 < expected < 0.9
  generator = np.random.default_rng(0)
  draws = [probe.few(labels, generator) for _ in range(5)]
  scores = [classifiers["knn"].fit(codes[draw], labels[draw]).score(tests, others) for draw in draws]
  values = [results[f"knn_few{end}/code"] for end in ("", "_low", "_high")]
  assert values == pytest.approx([np.mean(scores), min(scores), max(scores)], abs=0.5 / len(others))
  assert min(scores) < max(scores)


def test_results_do_not_depend_on_the_order_of_the_test_examples():
  x, y, labels, others = pairs(test=61, apart=1.5)
  order = np.random.default_rng(0).permutation(61)
  one, other = (numbers(analyze(x, y[rows], labels, others[rows])) for rows in (np.arange(61), order))
  assert len(one) == 3 * 10
  assert one == pytest.approx(other, abs=1e-6)


def test_results_are_reproducible_and_only_the_draws_depend_on_the_seed():
  arrays = pairs(apart=1.5)
  one, again, other = analyze(*arrays), analyze(*arrays), analyze(*arrays, seed=1)
  assert numbers(one) == numbers(again)
  np.testing.assert_array_equal(one["latent_map"].views["t-SNE"], again["latent_map"].views["t-SNE"])
  assert {name for name, value in numbers(one).items() if value != other[name] and "few" not in name} == set()
  assert any(one[name] != other[name] for name in numbers(one))


def test_cluster_agreement_matches_scikit_learn_for_any_names_of_the_classes():
  x, y, _, labels = pairs(apart=2.0)
  train, test = x[..., 0], y[..., 0]
  nmi, ari = probe.agreement(train, test, labels)
  clusters = cluster.KMeans(3, n_init=4, random_state=0).fit(train).predict(test)
  assert nmi == pytest.approx(metrics.normalized_mutual_info_score(labels, clusters))
  assert ari == pytest.approx(metrics.adjusted_rand_score(labels, clusters))
  assert 0.1 < ari < 0.9
  assert probe.agreement(train, test, 7 - 2 * labels) == pytest.approx((nmi, ari))


def test_clusters_use_standardised_features_and_nmi_and_ari_are_not_confused():
  x, y, labels, others = pairs(apart=2.0)
  x[:, 3], y[:, 3] = (1e3 * np.random.default_rng(n).normal(size=(n, 1)) for n in (90, 60))
  scaler = preprocessing.StandardScaler().fit(x[..., 0])
  nmi, ari = probe.agreement(*(scaler.transform(split[..., 0]) for split in (x, y)), others)
  results = analyze(x, y, labels, others)
  assert (results["kmeans_nmi/pixels"], results["kmeans_ari/pixels"]) == pytest.approx((nmi, ari))
  assert nmi > ari + 0.02
  assert ari > 0.3 > probe.agreement(x[..., 0], y[..., 0], others)[1]


def test_few_labels_have_the_same_number_of_each_class():
  labels = np.repeat([3, 5, 7], [40, 10, 9])
  drawn = probe.few(labels, np.random.default_rng(0))
  assert len(np.unique(drawn)) == len(drawn)
  assert np.unique(labels[drawn], return_counts=True)[1].tolist() == [probe.FEW_LABELS] * 2  # the third has too few
  assert len(probe.few(labels[:40], np.random.default_rng(0))) == 0


@pytest.mark.parametrize(("counts", "probed"), [((60, 25, 5), True), ((71, 10, 9), True), ((81, 5, 4), False)])
def test_classes_with_too_few_examples_have_a_remark(counts, probed):
  x, y, _, others = pairs()
  results = analyze(x, y, np.repeat([0, 1, 2], counts), others)
  assert f"{sum(count < 10 for count in counts)} of 3 classes have fewer than 10 training examples" in results["few"]
  assert ("linear_few/code" in results) == probed
  assert "linear/code" in results


@pytest.mark.parametrize(
  ("labels", "remark"),
  [
    (None, "at least one of these two sets has none"),
    (np.zeros(30), "at least one of these two sets has none"),
    (np.zeros(30, int), "have one label"),
    (np.arange(30) + 0.5, "at least one of these two sets has none"),
  ],
)
def test_without_labels_there_is_a_map_and_a_remark(labels, remark):
  x, _ = blobs(30)
  results = analyze(x, x, labels, labels)
  assert results.keys() == {"latent_map", "remark"}
  assert remark in results["remark"]
  assert not results["latent_map"].labels.any()


def test_too_many_classes_are_not_probed(monkeypatch):
  monkeypatch.setattr(probe, "_MAX_CLASSES", 3)
  assert "remark" not in analyze(*pairs())
  monkeypatch.setattr(probe, "_MAX_CLASSES", 2)
  assert "have 3 labels" in analyze(*pairs())["remark"]


def test_clusters_need_two_classes_and_large_examples_have_no_pixel_probe(monkeypatch):
  x, y, labels, others = pairs()
  monkeypatch.setattr(probe, "MAX_PIXELS", 4)
  assert "linear/pixels" in analyze(x, y, labels, others)
  monkeypatch.setattr(probe, "MAX_PIXELS", 3)
  results = analyze(x, y[others == 1], labels, others[others == 1])
  assert "one label" in results["kmeans"]
  assert "4 elements" in results["pixels"]
  assert not any("pixels" in name or "kmeans" in name for name in numbers(results))
  assert results["accuracy"].names == ("linear of latent code", "linear of PCA", "knn of latent code", "knn of PCA")
  assert results["linear/code"] == 1.0


@pytest.mark.parametrize("count", [1, 2, 11, 40])
def test_a_map_shows_any_number_of_examples(count):
  x, labels = blobs(count)
  map_of = analyze(x, x, labels, labels)["latent_map"]
  assert figures.shape_error(map_of) is None
  assert all(np.isfinite(view).all() for view in map_of.views.values())
  assert ("t-SNE" in map_of.views) == (count > 10)
  np.testing.assert_array_equal(map_of.labels, labels)


def test_a_map_shows_a_limited_number_of_examples(monkeypatch):
  monkeypatch.setattr(probe, "MAX_MAPPED", 20)
  x, labels = blobs(90)
  map_of = analyze(x, x, labels, labels)["latent_map"]
  assert len(map_of.examples) == 20
  rows = [np.flatnonzero((x == example).all((1, 2)))[0] for example in map_of.examples]
  np.testing.assert_array_equal(rows, spaced(20, 90))
  np.testing.assert_array_equal(labels[rows], map_of.labels)
  distances = [metrics.pairwise_distances(points) for points in (map_of.views["PCA"], x[rows, :2, 0])]
  np.testing.assert_allclose(*distances, rtol=1e-3, atol=1e-3)


def test_the_pca_view_agrees_with_scikit_learn():
  codes = np.random.default_rng(0).normal(size=(40, 5)) * [1.0, 5.0, 2.0, 0.5, 3.0] + [9.0, 0.0, -9.0, 20.0, 0.0]
  expected = decomposition.PCA(2).fit_transform(codes)
  np.testing.assert_allclose(np.abs(probe._by_pca(codes)), np.abs(expected), atol=1e-9)


def test_tsne_is_reproducible_and_invariant_to_the_scale_of_the_codes():
  line, plane = np.arange(40.0)[:, None], np.random.default_rng(0).normal(size=(40, 2))
  np.testing.assert_array_equal(probe._by_tsne(line), probe._by_tsne(line))
  np.testing.assert_array_equal(probe._by_tsne(plane), probe._by_tsne(2.0**-70 * plane))


@pytest.mark.parametrize("codes", [np.zeros((40, 3)), np.c_[np.arange(40.0)], 1e-20 * np.arange(80.0).reshape(40, 2)])
def test_codes_in_a_point_or_on_a_line_have_a_map(codes):
  x, labels = blobs(40)
  views = analyze(x, x, labels, labels, encode=lambda x: codes.astype(np.float32))["latent_map"].views
  assert all(np.isfinite(view).all() for view in views.values())
  assert ("t-SNE" in views) == bool(codes.any())


def test_classes_are_clusters_in_the_map():
  x, labels = blobs(60)
  for view in analyze(x, x, labels, labels)["latent_map"].views.values():
    assert metrics.silhouette_score(view, labels) > 0.5


def test_umap_has_a_view_if_it_is_installed(monkeypatch):
  x, labels = blobs(40)
  monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not installed
  assert "UMAP" not in analyze(x, x, labels, labels)["latent_map"].views
  umap = types.SimpleNamespace(fit_transform=lambda codes: codes[:, :2])
  monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=lambda random_state: umap))
  np.testing.assert_allclose(analyze(x, x, labels, labels)["latent_map"].views["UMAP"], x[:, :2, 0], rtol=1e-6)
