// Pins the release of Flagger whose CRDs tests install. Nothing is built from it: tests/setup/plane.sh asks the module
// cache where it lies, and copies its crd.yaml.
module serin.dev/plane/flagger

go 1.26.0

require github.com/fluxcd/flagger v1.44.0
