package netclass

// JoinOf joins by another mount table and for another process.
var JoinOf = join
