package journal

// Keep is how many runs are remembered.
const Keep = keep

// NoSync makes Put as fast as memory, for tests that are not about durability.
func (j *Journal) NoSync() { j.db.NoSync = true }
