package metrics

import "github.com/prometheus/client_golang/prometheus"

// Registry is what Text and Handler gather from.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }
