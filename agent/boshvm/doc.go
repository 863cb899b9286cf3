// Package boshvm tells who a VM made from a BOSH stemcell is, how it reaches its
// director's message bus and which persistent disks it has, from the files that
// bosh-agent keeps. It reads files and nothing else.
//
// bosh-agent rewrites its files in place: one that is caught empty or cut short is
// read again. Errors name the file and the key, and quote nothing of what a file
// holds, which may be a secret.
package boshvm
