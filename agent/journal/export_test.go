package journal

// Keep is how many ended runs without a snapshot are remembered.
const Keep = keep

// NoSync makes Put as fast as memory, for tests that are not about durability.
func (j *Journal) NoSync() { j.db.NoSync = true }
