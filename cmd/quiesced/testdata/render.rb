# Renders a job's templates as a director does: render.rb JOB-DIRECTORY INTO, with
# {"properties": {…}, "spec": {…}} on stdin. Properties that the job's spec does not
# list are not passed to templates. Prints the names of those that templates asked for.
require "erb"
require "fileutils"
require "json"
require "ostruct"
require "yaml"

class Context
  class Missing < StandardError; end

  NOTHING = Object.new

  attr_reader :spec

  ASKED = []

  def initialize(properties, spec)
    @properties = properties
    @spec = OpenStruct.new(spec)
  end

  def p(names, default = NOTHING)
    ASKED.concat(Array(names))
    found = Array(names).map { |name| @properties[name] }.find { |value| !value.nil? }
    return found unless found.nil?
    raise Missing, "no value for #{Array(names).join(", ")}" if default.equal?(NOTHING)
    default
  end

  def if_p(*names)
    ASKED.concat(names)
    values = names.map { |name| @properties[name] }
    return Otherwise.new(self) if values.any?(&:nil?)
    yield(*values)
    Done.new
  end

  class Otherwise
    def initialize(context) = @context = context
    def else = yield
    def else_if_p(*names, &block) = @context.if_p(*names, &block)
  end

  class Done
    def else; end
    def else_if_p(*) = self
  end

  def bound = binding
end

def dig(properties, name)
  name.split(".").inject(properties) { |at, key| at.is_a?(Hash) ? at[key] : nil }
end

job, into = ARGV
given = JSON.parse($stdin.read)
spec = YAML.safe_load(File.read("#{job}/spec"))
properties = spec["properties"].to_h do |name, about|
  value = dig(given["properties"], name)
  [name, value.nil? ? about["default"] : value]
end

spec["templates"].map { |from, to| ["templates/#{from}", to] }.push(["monit", "monit"]).each do |from, to|
  erb = ERB.new(File.read("#{job}/#{from}"), trim_mode: "-")
  erb.filename = from
  path = "#{into}/#{to}"
  FileUtils.mkdir_p(File.dirname(path))
  File.write(path, erb.result(Context.new(properties, given["spec"]).bound))
  File.chmod(to.start_with?("bin/") ? 0o755 : 0o644, path)
end

puts JSON.generate(Context::ASKED.uniq)
